"""The ternary matrix engine: beats of codes and int8 activations in, tiles of exact integer sums out."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes
from rtl.streams.shared_module import SharedModule
from rtl.ternary_matmul.accumulator import Accumulator
from rtl.ternary_matmul.activation_memory import ActivationMemory
from rtl.ternary_matmul.build_sequencer import BuildSequencer
from rtl.ternary_matmul.code_decoder import CodeDecoder
from rtl.ternary_matmul.drain_ring import DrainRing
from rtl.ternary_matmul.lane import Lane
from rtl.ternary_matmul.sweep import EVENTS, Sweep
from rtl.ternary_matmul.table_builder import TableBuilder
from rtl.ternary_matmul.timing import LANES_PER_BRANCH, EngineTiming

UNFINISHED_BITS = 5  # commands in the engine at a time: a dozen at most


class TernaryMatmul(wiring.Component):
    """``tile[r, n] = Σ_k weight[n, k]·activation[r, k]``: weights −1, 0, 1; n < steps·Q; k < slices·T·G; r < R ≤ P.

    Parameters: those of the design, see DesignParams; letters P, T, Q, G.

    Streams
    -------
    command (in)    : TILE words. ``done`` pulses once for each, in order, when the tile lies in the ring; ``busy``
                      while any is not done.
    codes (in)      : one CODES record a tile: slices outer, steps inner, one beat a step; ``last`` on the tile's last
                      beat, or ``framing_error`` is set until reset.
    activation (in) : T·G int8 of a row, slice by slice, rows 0 … R − 1 within a slice, into buffer 0 or 1. A buffer may
                      be filled again when its bit of ``activation_free`` is set: when the tables of the last slice
                      of a tile with ``release`` are being built.
    tile (out)      : {base, steps} of a finished tile in the drain ring, in command order. Step i is at ring address
                      base + i modulo drain_steps; ``drain_read`` fetches Q sums of a row, and ``drain_release`` gives
                      the oldest tile's steps back.

    rows, row_mask (in): R, and which lanes compute; a row whose bit is 0 keeps its accumulators and its ring words.
    events (out)       : what each cycle was, exactly one bit, one cycle late.

    Timing: a tile takes ``slices·interval_cycles(steps, rows)``, and that is slices·steps unless steps are few: tables
    of the next slice, be it of the next tile and from the other buffer, are built meanwhile. ``latency_cycles`` from a
    tile's last beat to its offer. All P rows cost what one does.

    Number format: sums in two's complement of ``accumulator_bits``, exact.
    Source: TeLLMe v2 (arXiv 2510.15926), section on table-lookup matmul.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        self.timing = EngineTiming(params)
        super().__init__({
            "command": In(stream.Signature(shapes.COMMAND_BITS)), "done": Out(1), "busy": Out(1),
            "codes": In(shapes.framed(params)),
            "activation": In(stream.Signature(shapes.activation_slice(params))), "activation_free": Out(2),
            "rows": In(bits_for(params.rows)), "row_mask": In(params.rows),
            "tile": Out(stream.Signature(shapes.drain_tile(params))),
            "drain_read": In(shapes.drain_read(params)), "drain_release": In(shapes.DRAIN_RELEASE),
            "framing_error": Out(1), "events": Out(EVENTS),
        })

    def interval_cycles(self, steps: int, rows: int) -> float:
        """Cycles from slice to slice in the steady state."""
        return self.timing.interval_cycles(steps, rows)

    @property
    def latency_cycles(self) -> int:
        """From the cycle of a tile's last beat to that in which the tile is offered."""
        return self.timing.write + 2

    def elaborate(self, platform):
        p, m, timing = self.params, Module(), self.timing
        m.submodules.activations = activations = ActivationMemory(p)
        m.submodules.sequencer = sequencer = BuildSequencer(p)
        m.submodules.sweep = sweep = Sweep(p)
        m.submodules.decoder = decoder = CodeDecoder(p)
        m.submodules.ring = ring = DrainRing(p)
        connect(m, flipped(self.command), sequencer.command)
        connect(m, flipped(self.activation), activations.activation)
        connect(m, flipped(self.codes), sweep.codes)
        connect(m, sequencer.tile, sweep.tile)
        connect(m, ring.tile, flipped(self.tile))
        connect(m, flipped(self.drain_read), ring.drain_read)

        row_mask = Signal(p.rows)
        m.d.sync += row_mask.eq(self.row_mask)
        m.d.comb += [
            activations.rows.eq(self.rows), sequencer.rows.eq(self.rows),
            activations.release.eq(sequencer.release), self.activation_free.eq(activations.free),
            activations.read_enable.eq(sequencer.read_enable), activations.read_address.eq(sequencer.read_address),
            sequencer.ready_slices.eq(activations.ready_slices), sequencer.swept.eq(sweep.swept),
            sweep.built.eq(sequencer.built), sweep.activation_missing.eq(sequencer.waiting),
            sweep.room.eq(ring.room), sweep.ring_step.eq(ring.step), ring.steps.eq(sweep.steps),
            ring.reserve.eq(sweep.reserve), ring.advance.eq(sweep.advance), ring.drain_release.eq(self.drain_release),
            decoder.valid.eq(sweep.issue), decoder.beat.eq(self.codes.payload.data),
            self.framing_error.eq(sweep.framing_error), self.events.eq(sweep.events),
        ]

        builders = []
        for b in range(timing.builders):
            builder = TableBuilder(p)
            m.submodules[f"builder_{b}"] = SharedModule(builder, builder.module_name)
            m.d.comb += [builder.load.eq(sequencer.load[b]), builder.activations.eq(activations.read_data),
                         builder.turn.eq(sequencer.turn), builder.bank.eq(sequencer.bank)]
            builders.append(builder)

        # What a beat is travels beside it: stage n is n cycles after the beat was taken.
        valid, control = [sweep.issue], [sweep.control]
        for n in range(1, timing.write + 1):
            valid.append(Signal(name=f"valid_{n}"))
            control.append(Signal(sweep.control.shape(), name=f"control_{n}", reset_less=True))
            m.d.sync += [valid[n].eq(valid[n - 1]), control[n].eq(control[n - 1])]
        start = sweep.start
        for n in range(Sweep.START_CYCLES + 1, timing.add + 1):
            start, before = Signal.like(start, name=f"start_{n}", reset_less=True), start
            m.d.sync += start.eq(before)
        at_lane = timing.lane_input
        read, add, write = timing.add - Accumulator.read_cycles, timing.add, timing.write

        codes = [decoder.codes] * p.rows
        if timing.branch_cycles:
            codes = []
            for first in range(0, p.rows, LANES_PER_BRANCH):
                branch = Signal.like(decoder.codes, name=f"branch_{first}", reset_less=True)
                with m.If(valid[at_lane - 1]):
                    m.d.sync += branch.eq(decoder.codes)
                codes += [branch] * min(LANES_PER_BRANCH, p.rows - first)

        results = []
        for r in range(p.rows):
            lane, accumulator = Lane(p), Accumulator(p)
            m.submodules[f"lane_{r}"] = SharedModule(lane, lane.module_name)
            m.submodules[f"accumulator_{r}"] = SharedModule(accumulator, accumulator.module_name)
            builder, turn = builders[r % timing.builders], r // timing.builders
            m.d.comb += [
                lane.valid.eq(valid[at_lane] & row_mask[r]), lane.codes.eq(codes[r]),
                lane.bank.eq(control[at_lane].bank),
                lane.table_enable.eq(builder.enable[turn]), lane.table_address.eq(builder.address),
                lane.table_data.eq(builder.data),
                accumulator.read.eq(valid[read] & row_mask[r] & ~control[read].first),
                accumulator.read_step.eq(control[read].step),
                accumulator.add.eq(valid[add] & row_mask[r]), accumulator.first.eq(control[add].first),
                accumulator.start.eq(start), accumulator.sums.eq(lane.sums), accumulator.carries.eq(lane.carries),
                accumulator.write.eq(valid[write] & row_mask[r] & ~control[write].last),
                accumulator.write_step.eq(control[write].step),
                ring.write[r].eq(valid[write] & row_mask[r] & control[write].last),
            ]
            results.append(accumulator.result)
        m.d.comb += [ring.write_step.eq(control[write].ring_step), ring.write_data.eq(Cat(results))]

        finished, unfinished = Signal(), Signal(UNFINISHED_BITS)
        m.d.sync += [
            finished.eq(valid[write] & control[write].tile_end),
            unfinished.eq(unfinished + (self.command.valid & self.command.ready) - finished),
        ]
        m.d.comb += [ring.finished.eq(finished), self.done.eq(finished), self.busy.eq(unfinished != 0)]
        return m
