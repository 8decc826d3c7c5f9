"""Takes beats of codes for the tiles whose tables are built, and says what each beat is."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes
from rtl.ternary_matmul.accumulator import Accumulator
from rtl.ternary_matmul.activation_memory import SLICE_BITS
from rtl.ternary_matmul.build_sequencer import BANKS, TILE_SIZE
from rtl.ternary_matmul.lane import entry_offset

EVENTS = data.StructLayout({name: 1 for name in (
    "step", "wait_stream", "wait_activation", "wait_table", "wait_drain", "no_command")})
"""What a cycle was: a beat taken, or why none was; exactly one is set.

wait_table also counts the waits of tiles with fewer steps than an accumulator takes."""


def beat_control(params: DesignParams) -> data.StructLayout:
    """What a beat is: its step's accumulators, place in the drain ring, first and last slice, last beat of the tile."""
    return data.StructLayout({
        "bank": 1, "step": bits_for(params.tile_steps - 1), "ring_step": bits_for(params.drain_steps - 1),
        "first": 1, "last": 1, "tile_end": 1,
    })


class Sweep(wiring.Component):
    """For every slice, for every step: take one beat as soon as nothing is in its way.

    A slice's first beat waits for its tables; that of the last slice for room in the drain ring as well; that of a tile
    with fewer steps than ``revisit_cycles`` also until the accumulators are written.

    Streams: tile (in), sizes of the tiles in order. codes (in): beats; their payload goes past this block.

    Signals
    -------
    issue, control (out)         : a beat is taken, and what it is.
    start (out)                  : what the tile's accumulators start from, ``START_CYCLES`` after the beat: minus the
                                   offsets of all slices' sums.
    built (in), swept (out)      : tables are ready from the next cycle on; a slice's last beat is taken.
    room (in), steps, reserve, advance (out), ring_step (in) : the drain ring's.
    activation_missing (in)      : tables wait for activations (for the events).
    events, framing_error (out)  : see EVENTS; set for good when a record doesn't end with its tile.
    """

    START_CYCLES = 1

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "tile": In(stream.Signature(TILE_SIZE)), "codes": In(shapes.framed(params)),
            "issue": Out(1), "control": Out(beat_control(params)), "start": Out(params.accumulator_bits),
            "built": In(1), "swept": Out(1),
            "room": In(1), "steps": Out(bits_for(params.tile_steps)), "reserve": Out(1), "advance": Out(1),
            "ring_step": In(bits_for(params.drain_steps - 1)),
            "activation_missing": In(1), "events": Out(EVENTS), "framing_error": Out(1),
        })

    def elaborate(self, platform):
        p, m = self.params, Module()
        tile = self.tile.payload
        step, slice_ = Signal(bits_for(p.tile_steps - 1)), Signal(SLICE_BITS)
        bank, built = Signal(), Signal(range(BANKS + 1))
        is_first_step, is_last_step, is_last_slice = Signal(), Signal(), Signal()
        settled, clear, may = Signal(), Signal(), Signal()
        m.d.comb += [
            is_first_step.eq(step == 0),
            is_last_step.eq(step + 1 == tile.steps), is_last_slice.eq(slice_ + 1 == tile.slices),
            settled.eq((tile.steps >= Accumulator.revisit_cycles) | ~self._recent_issue(m)),
            clear.eq((built != 0) & (~is_last_slice | self.room) & settled),
            may.eq(self.tile.valid & (~is_first_step | clear)),
            self.codes.ready.eq(may), self.issue.eq(may & self.codes.valid),
            self.swept.eq(self.issue & is_last_step),
            self.tile.ready.eq(self.swept & is_last_slice),
        ]
        m.d.sync += built.eq(built + self.built - self.swept)
        with m.If(self.issue):
            m.d.sync += step.eq(Mux(is_last_step, 0, step + 1))
            with m.If(is_last_step):
                m.d.sync += [bank.eq(~bank), slice_.eq(Mux(is_last_slice, 0, slice_ + 1))]
            with m.If(self.codes.payload.last != (is_last_step & is_last_slice)):
                m.d.sync += self.framing_error.eq(1)
        m.d.comb += [
            self.control.bank.eq(bank), self.control.step.eq(step), self.control.ring_step.eq(self.ring_step),
            self.control.first.eq(slice_ == 0), self.control.last.eq(is_last_slice),
            self.control.tile_end.eq(is_last_step & is_last_slice),
            self.steps.eq(tile.steps),
            self.reserve.eq(self.issue & is_last_slice & is_first_step), self.advance.eq(self.issue & is_last_slice),
        ]
        m.d.sync += self.start.eq(-(tile.slices * (p.tables * entry_offset(p))))

        events = self.events
        m.d.sync += [events.as_value().eq(0)]
        with m.If(self.issue):
            m.d.sync += events.step.eq(1)
        with m.Elif(~self.tile.valid):
            m.d.sync += events.no_command.eq(1)
        with m.Elif(may):
            m.d.sync += events.wait_stream.eq(1)
        with m.Elif((built == 0) & self.activation_missing):
            m.d.sync += events.wait_activation.eq(1)
        with m.Elif((built == 0) | self.room | ~is_last_slice):
            m.d.sync += events.wait_table.eq(1)
        with m.Else():
            m.d.sync += events.wait_drain.eq(1)
        return m

    def _recent_issue(self, m: Module) -> Signal:
        """Whether a beat was taken whose sums a beat taken now could not read back yet."""
        recent = Signal(Accumulator.revisit_cycles - 1)
        m.d.sync += recent.eq(recent << 1 | self.issue)
        return recent.any()
