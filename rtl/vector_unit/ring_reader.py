"""Reads finished tiles out of the drain ring, row by row, as words of W sums."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes
from rtl.streams.gearbox import Gearbox

FIFO_WORDS = shapes.DRAIN_READ_LATENCY + 3
"""Room for what is under way when the words behind stop; at full rate it is just refilled."""


def sums_word(params: DesignParams) -> data.StructLayout:
    """W sums of a row (of a pair: of the gate and of the up tile); ``row_last`` ends a row, ``last`` the request."""
    sums = data.ArrayLayout(signed(params.accumulator_bits), params.vector_lanes)
    return data.StructLayout({"gate": sums, "up": sums, "row": shapes.row_bits(params), "row_last": 1, "last": 1})


class RingReader(wiring.Component):
    """words[r][j] = sums W·j … W·j + W − 1 of the tile's outputs for row r, r = 0 … R−1; two tiles beside each other.

    Streams
    -------
    request (in) : ``outputs`` wanted of the tile, a multiple of W; ``paired``: the next two tiles are a gate and an up
                   tile of the same outputs. Taken when the ring has been read.
    tile (in)    : tiles in the ring, oldest first.
    words (out)  : outputs rising within a row, rows rising. Outputs beyond the tile's steps·Q are zero. ``up`` is
                   meaningful for pairs only.

    Ports: ``rows`` (R); ``drain_read``; ``drain_release``: a tile (each of a pair) has been read;
    ``tile_there``: the request's (first) tile has come.

    Timing: min(W, Q) outputs a cycle; of pairs min(W, Q/2) pairs, because both come over one read port.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "request": In(stream.Signature(data.StructLayout({"outputs": 16, "paired": 1}))),
            "rows": In(bits_for(params.rows)),
            "tile": In(stream.Signature(shapes.drain_tile(params))),
            "drain_read": Out(shapes.drain_read(params)),
            "drain_release": Out(shapes.DRAIN_RELEASE),
            "words": Out(stream.Signature(sums_word(params))),
            "tile_there": Out(1),
        })
        self.gearbox = Gearbox(2 * params.accumulator_bits, params.outputs, params.vector_lanes, pads=False)

    def row_cycles(self, outputs: int, paired: bool) -> int:
        """Cycles from one row to the next, nobody stalling."""
        if not paired:
            return self.gearbox.interval_cycles(outputs)
        return max(2 * -(-outputs // self.params.outputs), -(-outputs // self.params.vector_lanes))

    def elaborate(self, platform):
        m = Module()
        params = self.params
        acc, q, lanes = params.accumulator_bits, params.outputs, params.vector_lanes
        request = self.request.p
        address_bits = bits_for(params.drain_steps - 1)

        # --- reads: a step (of a pair: the gate's, then the up's) whenever the FIFO will have room for what comes ---
        class Place:
            def __init__(self, name: str):
                self.base, self.address = (Signal(address_bits, name=f"{name}_{n}") for n in ("base", "address"))
                self.steps = Signal(16, name=f"{name}_steps")

        gate, up = Place("gate"), Place("up")
        row, step, left = Signal(shapes.row_bits(params)), Signal(16), Signal(16)
        on_up = Signal()
        reserved = Signal(range(FIFO_WORDS + 1))
        reading, issue, reserve, freed = Signal(), Signal(), Signal(), Signal()
        completes = ~request.paired | on_up
        step_last, row_last = left <= q, row + 1 == self.rows
        m.d.comb += [
            issue.eq(reading & (on_up | (reserved != FIFO_WORDS))),
            reserve.eq(issue & ~on_up),
            self.drain_read.enable.eq(issue & (step < Mux(on_up, up.steps, gate.steps))),
            self.drain_read.step.eq(Mux(on_up, up.address, gate.address)),
            self.drain_read.row.eq(row),
        ]
        m.d.sync += reserved.eq(reserved + reserve - freed)

        def advance(place: Place):
            following = Mux(place.address == params.drain_steps - 1, 0, place.address + 1)
            return place.address.eq(Mux(step_last, place.base, following))

        all_read = Signal()
        with m.If(issue):
            m.d.sync += on_up.eq(request.paired & ~on_up)
            with m.If(on_up):
                m.d.sync += advance(up)
            with m.Else():
                m.d.sync += advance(gate)
            with m.If(completes):
                m.d.sync += [step.eq(step + 1), left.eq(left - q)]
                with m.If(step_last):
                    m.d.sync += [step.eq(0), left.eq(request.outputs), row.eq(row + 1)]
                    m.d.comb += all_read.eq(row_last)

        # --- what comes back: a gate's word goes on a cycle later, beside the up's, which is read right after it ---
        under_way = data.StructLayout({"real": 1, "is_gate": 1, "count": bits_for(q), "last": 1})
        valid, item = issue, Signal(under_way)
        m.d.comb += [item.real.eq(self.drain_read.enable), item.is_gate.eq(~on_up),
                     item.count.eq(Mux(step_last, left, q)), item.last.eq(step_last)]
        for stage in range(shapes.DRAIN_READ_LATENCY):
            next_valid, next_item = Signal(name=f"valid_{stage}"), Signal(under_way, name=f"item_{stage}")
            m.d.sync += [next_valid.eq(valid), next_item.eq(item)]
            valid, item = next_valid, next_item
        came = [Mux(item.real, self.drain_read.data[n].as_unsigned(), 0) for n in range(q)]
        waiting, gate_item, gate_waits = [Signal(acc, name=f"gate_{n}") for n in range(q)], Signal(under_way), Signal()
        m.d.sync += [gate_waits.eq(valid & item.is_gate), gate_item.eq(item),
                     *(into.eq(value) for into, value in zip(waiting, came))]
        pairs = [Cat(old, new) for old, new in zip(waiting, came)]
        entry = data.StructLayout({"data": data.ArrayLayout(2 * acc, q), "count": bits_for(q), "last": 1})
        m.submodules.fifo = queue = fifo.SyncFIFO(width=entry.size, depth=FIFO_WORDS)
        entered, leaving = data.View(entry, queue.w_data), data.View(entry, queue.r_data)
        m.submodules.gearbox = gearbox = self.gearbox
        m.d.comb += [
            queue.w_en.eq(gate_waits), *(entered.data[n].eq(pairs[n]) for n in range(q)),
            entered.count.eq(gate_item.count), entered.last.eq(gate_item.last),
            gearbox.i.valid.eq(queue.r_rdy), gearbox.i.p.eq(queue.r_data), queue.r_en.eq(gearbox.i.ready),
            freed.eq(queue.r_rdy & queue.r_en),
        ]
        assert leaving.shape().size == gearbox.i.p.shape().size

        # --- words of W ---
        out_row = Signal(shapes.row_bits(params))
        m.d.comb += [
            self.words.valid.eq(gearbox.o.valid), gearbox.o.ready.eq(self.words.ready),
            *(self.words.p.gate[n].eq(gearbox.o.p.data[n][:acc].as_signed()) for n in range(lanes)),
            *(self.words.p.up[n].eq(gearbox.o.p.data[n][acc:].as_signed()) for n in range(lanes)),
            self.words.p.row.eq(out_row), self.words.p.row_last.eq(gearbox.o.p.last),
            self.words.p.last.eq(gearbox.o.p.last & (out_row + 1 == self.rows)),
        ]
        with m.If(self.words.valid & self.words.ready & self.words.p.row_last):
            m.d.sync += out_row.eq(out_row + 1)
            with m.If(self.words.p.last):
                m.d.sync += out_row.eq(0)

        with m.FSM():
            with m.State("gate"):
                m.d.comb += self.tile.ready.eq(self.request.valid)
                m.d.sync += [row.eq(0), step.eq(0), left.eq(request.outputs), on_up.eq(0)]
                for place in (gate, up):
                    m.d.sync += [place.base.eq(self.tile.p.base), place.address.eq(self.tile.p.base),
                                 place.steps.eq(self.tile.p.steps)]
                with m.If(self.request.valid & self.tile.valid):
                    m.next = "read"
                    with m.If(request.paired):
                        m.next = "up"
            with m.State("up"):
                m.d.comb += [self.tile_there.eq(1), self.tile.ready.eq(1)]
                m.d.sync += [up.base.eq(self.tile.p.base), up.address.eq(self.tile.p.base),
                             up.steps.eq(self.tile.p.steps)]
                with m.If(self.tile.valid):
                    m.next = "read"
            with m.State("read"):
                m.d.comb += [self.tile_there.eq(1), reading.eq(1)]
                with m.If(all_read):
                    m.next = "empty"
            with m.State("empty"):
                # The last words' data still come, and `request` (paired) must stay until they are in the FIFO.
                m.d.comb += self.tile_there.eq(1)
                with m.If(reserved == 0):
                    m.d.comb += [self.drain_release.valid.eq(1), self.drain_release.steps.eq(gate.steps)]
                    with m.If(request.paired):
                        m.next = "free_up"
                    with m.Else():
                        m.d.comb += self.request.ready.eq(1)
                        m.next = "gate"
            with m.State("free_up"):
                m.d.comb += [self.tile_there.eq(1), self.drain_release.valid.eq(1),
                             self.drain_release.steps.eq(up.steps), self.request.ready.eq(1)]
                m.next = "gate"
        return m
