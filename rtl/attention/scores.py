"""Integer scores of a tile to float scores, row-vector by row-vector."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.attention import tile_shapes
from rtl.attention.queue import Queue
from rtl.attention.row_vectors import RowVectorCounter
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for, signed_range
from rtl.streams import shapes

CYCLES_PER_RESULT = 4
"""Cycles in which all A lanes of a result go to memory; a beat of the array lasts head_dim/16 cycles a turn."""


class Scores(wiring.Component):
    """s[i][t] = score(dot[i][t], query_scale(σq[i], factor), σK[t]) of a tile, and which positions are visible.

    The array delivers A row-vectors at a time, position group by position group; the softmax takes one row-vector
    after the other. Two tiles fit: one is read while the next one comes in.

    visible(i, t): with p = difference + t, p < 0 or (p < rows and the row sees row first_row + p of the pass).

    Parameters
    ----------
    params  : S = ``segments`` scores a cycle, A = ``row_vectors`` lanes, max_row_vectors, max_head_dim.
    kernels : name → kernel; uses ``query_scale`` and ``score``.

    Streams
    -------
    tile   (in)  : the tiles in order; at most TILES_AHEAD are taken before the first is done.
    scales (in)  : σK and σV of a tile's position groups, rising (``groups_of_positions`` transfers a tile).
    scores (in)  : q·k: for each group rising, for each turn rising; a tile's are taken after its ``tile``.
    rows   (out) : for each row-vector rising, its groups rising: scores, visible bits, σV.
    query_scale_address (out), query_scale_data (in): bfloat16 scale of {row of the pass, query head}, one cycle later.
        Read once a row-vector, after the tile's first scores have come.

    Timing: ``rows`` has a word a cycle within a tile. A result takes ``fill_cycles(lanes in use)`` to come in.
    """

    def __init__(self, params: DesignParams, kernels: Mapping[str, Any]):
        self.params, self.kernels = params, kernels
        super().__init__({
            "tile": In(stream.Signature(tile_shapes.tile(params))),
            "pass_state": In(shapes.pass_state(params)),
            "scales": In(stream.Signature(tile_shapes.scale_group(params))),
            "scores": In(stream.Signature(tile_shapes.score_sums(params))),
            "query_scale_address": Out(tile_shapes.query_address(params)),
            "query_scale_data": In(16),
            "rows": Out(stream.Signature(tile_shapes.score_row(params))),
        })

    @staticmethod
    def lanes_a_step(params: DesignParams) -> int:
        """Row-vectors of a result that are written together."""
        return -(-params.row_vectors // CYCLES_PER_RESULT)

    @classmethod
    def fill_cycles(cls, params: DesignParams, lanes: int) -> int:
        """Cycles that a result with ``lanes`` row-vectors in use takes."""
        return -(-lanes // cls.lanes_a_step(params))

    def elaborate(self, platform):
        m = Module()
        params = self.params
        tile_layout = tile_shapes.tile(params)

        # every part of the block walks the tiles at its own pace
        parts = ("scale", "fill", "query", "read")
        queues = {part: Queue(tile_layout, tile_shapes.TILES_AHEAD) for part in parts}
        for part, queue in queues.items():
            m.submodules[f"{part}_tiles"] = queue
        m.d.comb += self.tile.ready.eq(Cat(queue.i.ready for queue in queues.values()).all())
        for queue in queues.values():
            m.d.comb += [queue.i.valid.eq(self.tile.valid & self.tile.ready), queue.i.p.eq(self.tile.p)]

        read_done = Signal()
        scale_memory, scales_complete = self._scales(m, queues["scale"].o, read_done)
        score_memory, scores_complete, begun = self._fill(m, queues["fill"].o, read_done)
        query = self._query_scales(m, queues["query"].o, begun)
        self._read(m, queues["read"].o, scores_complete & scales_complete, score_memory, scale_memory, query, read_done)
        return m

    def _scales(self, m, tile, read_done):
        """Scales of two tiles; returns the memory and whether the tile to be read is there."""
        groups = tile_shapes.position_groups(self.params)
        memory = Memory(shape=tile_shapes.scale_group(self.params), depth=2 * groups, init=[])
        m.submodules.scale_memory = memory
        write = memory.write_port()
        group = Signal(range(groups))
        buffer = Signal()
        is_last = group == tile.p.groups_of_positions - 1
        held = _Count(m, "scales")
        taken = self.scales.valid & self.scales.ready
        m.d.comb += [
            self.scales.ready.eq(tile.valid & held.has_room), tile.ready.eq(taken & is_last),
            write.addr.eq(Cat(group, buffer)), write.data.eq(self.scales.p),
            write.en.eq(taken), held.up.eq(taken & is_last), held.down.eq(read_done),
        ]
        with m.If(taken):
            m.d.sync += group.eq(Mux(is_last, 0, group + 1))
            with m.If(is_last):
                m.d.sync += buffer.eq(~buffer)
        return memory, held.any

    def _fill(self, m, tile, read_done):
        """Scores of two tiles, ``lanes_a_step`` row-vectors a word; returns memory, whether a tile is complete, begun.

        Word: {buffer, slot, group}, slot = turn·steps + step of the result.
        """
        params = self.params
        width, step_lanes, groups = self._score_bits, self.lanes_a_step(params), tile_shapes.position_groups(params)
        steps = self.fill_cycles(params, params.row_vectors)
        step_bits = step_lanes * params.segments * width
        m.submodules.score_memory = memory = Memory(
            shape=step_bits, depth=2 * self._slots * groups, init=[])
        write = memory.write_port()

        # the result stays where it is until its last step: one multiplexer instead of a copy of all of it
        step, buffer, inside = Signal(range(steps)), Signal(), Signal()
        written, ended = Signal(), Signal()
        begun, complete = _Count(m, "begun"), _Count(m, "complete")
        incoming = self.scores.p
        first_of_turn = incoming.turn * params.row_vectors
        live = tile.p.row_vectors - first_of_turn  # lanes in use, perhaps more than A
        is_last = (incoming.group == tile.p.groups_of_positions - 1) & (live <= params.row_vectors)
        last_step = sum((live > n * step_lanes for n in range(1, steps)), start=Const(0, 1))
        may_go, ends = Signal(), Signal()
        taken = self.scores.valid & self.scores.ready
        group = Signal(range(groups))
        words = [Cat(incoming.dots[lane][s][:width] for lane in range(n * step_lanes, (n + 1) * step_lanes)
                     for s in range(params.segments) if lane < params.row_vectors) for n in range(steps)]
        m.d.comb += [
            group.eq(incoming.group), may_go.eq(tile.valid & (inside | begun.has_room)), ends.eq(step == last_step),
            self.scores.ready.eq(may_go & ends), tile.ready.eq(taken & is_last),
            begun.up.eq(taken & ~inside), begun.down.eq(read_done),
            complete.up.eq(ended), complete.down.eq(read_done), write.en.eq(written),
        ]
        m.d.sync += [written.eq(self.scores.valid & may_go), ended.eq(taken & is_last)]
        with m.If(self.scores.valid & may_go):
            m.d.sync += [
                step.eq(Mux(ends, 0, step + 1)), write.data.eq(Array(words)[step]),
                write.addr.eq(_address(group, incoming.turn * steps + step, buffer, self._slots)),
            ]
        with m.If(taken):
            m.d.sync += inside.eq(~is_last)
            with m.If(is_last):
                m.d.sync += buffer.eq(~buffer)
        return memory, complete.any, taken & ~inside

    def _query_scales(self, m, tile, begun):
        """Stream of the row-vectors' query scales, ahead of their use; ``begun`` pulses on a tile's first scores."""
        params = self.params
        factor_kernel = self.kernels["query_scale"].pipeline(lanes=1, ii=1, tag_bits=0)
        m.submodules.query_scale = factor_kernel
        m.submodules.query_scales = ready_scales = Queue(32, 4)
        place = RowVectorCounter("query", params, params.row_vectors)
        waiting = Signal(range(tile_shapes.TILES_AHEAD + 1))  # tiles begun whose scales are not all read
        addressed = Signal()  # the address stands since a cycle
        done = Signal()
        m.d.sync += waiting.eq(waiting + begun - (done & place.is_last(tile.p.row_vectors)))
        first_head = Signal(tile_shapes.HEAD_BITS)
        m.d.comb += [
            first_head.eq(tile.p.kv_head * tile.p.queries_per_kv),
            self.query_scale_address.row.eq(tile.p.first_row + place.row),
            self.query_scale_address.head.eq(first_head + place.head),
            factor_kernel.i.valid.eq(addressed),
            factor_kernel.i.p.q_scale[0].eq(self.query_scale_data << 16),
            factor_kernel.i.p.factor.eq(tile.p.factor),
            done.eq(addressed & factor_kernel.i.ready),
            tile.ready.eq(done & place.is_last(tile.p.row_vectors)),
            ready_scales.i.valid.eq(factor_kernel.o.valid), ready_scales.i.payload.eq(factor_kernel.o.p.value[0]),
            factor_kernel.o.ready.eq(ready_scales.i.ready),
        ]
        m.d.sync += addressed.eq((waiting != 0) & tile.valid & ~done)
        with m.If(done):
            place.step(m, tile.p.row_vectors, tile.p.queries_per_kv)
        return ready_scales.o

    def _read(self, m, tile, there, score_memory, scale_memory, query, read_done):
        """Two stages (memories; lane and visibility) in front of the kernel; all move on ``advance``."""
        params = self.params
        S, step_lanes, groups = params.segments, self.lanes_a_step(params), tile_shapes.position_groups(params)
        steps = self.fill_cycles(params, params.row_vectors)
        kernel_tag = data.StructLayout({name: field.shape for name, field in tile_shapes.score_row(params)
                                        if name != "score"})
        kernel = self.kernels["score"].pipeline(lanes=S, ii=1, tag_bits=kernel_tag.size,
                                                ranges={"dot": signed_range(self._score_bits)})
        m.submodules.score = kernel
        advance = Signal()

        # stage 0: which word
        place = RowVectorCounter("read", params, params.row_vectors)
        step, bank = Signal(range(steps)), Signal(range(step_lanes))
        group, buffer = Signal(range(groups)), Signal()
        issue = tile.valid & there
        is_last_group = group == tile.p.groups_of_positions - 1
        is_last = place.is_last(tile.p.row_vectors)
        score_read, scale_read = score_memory.read_port(), scale_memory.read_port()
        m.d.comb += [
            score_read.en.eq(advance), scale_read.en.eq(advance),
            score_read.addr.eq(_address(group, place.turn * steps + step, buffer, self._slots)),
            scale_read.addr.eq(Cat(group, buffer)),
            read_done.eq(advance & issue & is_last_group & is_last), tile.ready.eq(read_done),
        ]
        with m.If(advance & issue):
            m.d.sync += group.eq(Mux(is_last_group, 0, group + 1))
            with m.If(is_last_group):
                with m.If(is_last | (place.lane == params.row_vectors - 1)):
                    m.d.sync += [step.eq(0), bank.eq(0)]
                with m.Elif(bank == step_lanes - 1):
                    m.d.sync += [bank.eq(0), step.eq(step + 1)]
                with m.Else():
                    m.d.sync += bank.eq(bank + 1)
                with m.If(is_last):
                    m.d.sync += buffer.eq(~buffer)
                place.step(m, tile.p.row_vectors, tile.p.queries_per_kv)

        # stage 1: the word's memory data; what the row sees of its group's new tokens
        frame_layout = data.StructLayout({"first": 1, "last": 1, "first_row_vector": 1, "last_row_vector": 1})
        frame, bank_1, valid_1 = Signal(frame_layout), Signal.like(bank), Signal()
        seen_rows = Signal(params.rows)
        position = Signal(signed(tile_shapes.DIFFERENCE_BITS + 1))  # of the word's first score among the new tokens
        row = (tile.p.first_row + place.row)[:shapes.row_bits(params)]
        with m.If(advance):
            m.d.sync += [
                valid_1.eq(issue), bank_1.eq(bank),
                frame.first.eq(group == 0), frame.last.eq(is_last_group),
                frame.first_row_vector.eq(place.index == 0), frame.last_row_vector.eq(is_last),
                position.eq(tile.p.difference + group * S),
                seen_rows.eq((self.pass_state.visible[row] >> tile.p.first_row) & ((1 << tile.p.rows) - 1)),
            ]

        # stage 2: the row-vector's lane of the word
        word = Signal(tile_shapes.score_row(params))
        dots = Signal(data.ArrayLayout(signed(self._score_bits), S))
        key_scale = Signal(data.ArrayLayout(16, S))
        valid_2 = Signal()
        with m.If(advance):
            m.d.sync += [valid_2.eq(valid_1), key_scale.eq(scale_read.data.key),
                         word.value_scale.eq(scale_read.data.value)]
            m.d.sync += [word[name].eq(frame[name]) for name, _ in frame_layout]
            m.d.sync += dots.eq(score_read.data.word_select(bank_1, S * self._score_bits))
            for s in range(S):
                p = position + s
                index = p[:shapes.row_bits(params)]
                m.d.sync += word.visible[s].eq(
                    (p < 0) | ((p < params.rows) & seen_rows.bit_select(index, 1)))

        tag = Signal(kernel_tag)
        m.d.comb += [
            advance.eq(~valid_2 | (query.valid & kernel.i.ready)),
            kernel.i.valid.eq(valid_2 & query.valid), query.ready.eq(valid_2 & word.last & kernel.i.ready),
            kernel.i.p.q.eq(query.payload),
        ]
        m.d.comb += [tag[name].eq(word[name]) for name, _ in kernel_tag]
        m.d.comb += kernel.i.p.tag.eq(tag)
        for s in range(S):
            m.d.comb += [kernel.i.p.dot[s].eq(dots[s]), kernel.i.p.k_scale[s].eq(key_scale[s] << 16)]

        tag_out = data.View(kernel_tag, kernel.o.p.tag)
        m.d.comb += [self.rows.valid.eq(kernel.o.valid), kernel.o.ready.eq(self.rows.ready)]
        m.d.comb += [self.rows.p[name].eq(tag_out[name]) for name, _ in kernel_tag]
        m.d.comb += [self.rows.p.score[s].eq(kernel.o.p.value[s]) for s in range(S)]

    @property
    def _score_bits(self) -> int:
        return tile_shapes.score_bits(self.params)

    @property
    def _slots(self) -> int:
        """Words of a position group of a tile at most."""
        return self.params.max_turns * self.fill_cycles(self.params, self.params.row_vectors)


class _Count:
    """Buffers in use, 0 … 2: ``up`` and ``down`` are pulses."""

    def __init__(self, m, name: str):
        count = Signal(2, name=f"{name}_count")
        self.up, self.down = Signal(name=f"{name}_up"), Signal(name=f"{name}_down")
        self.any, self.has_room = count != 0, count != 2
        m.d.sync += count.eq(count + self.up - self.down)


def _address(group, slot, buffer, slots: int):
    """{buffer, slot, group}; the number of slots needn't be a power of two."""
    return Cat(group, (slot + Mux(buffer, slots, 0))[:bits_for(2 * slots - 1)])
