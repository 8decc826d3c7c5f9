"""The int8 array: a beat of S segments against A row-vectors, for QKᵀ, P·V and the output head."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for
from rtl.int8_dot.dot16 import LANES, Dot16, skewed
from rtl.int8_dot.lane_pair import LanePair
from rtl.streams import shapes
from rtl.streams.shared_module import SharedModule

RESULT_SLOTS = 32
"""Finished sums that can wait: more than the pipeline is long, so that it never has to stop."""


class DotEngine(wiring.Component):
    """``dots[turn][a][s] = Σ_beats Σ_i segment[s][i]·operand[beat.operand + turn·beat.turn_stride][a][i]``.

    s = 0 … S−1, a = 0 … A−1, i = 0 … 15; segments int8, operands −127 … 127, sums of 32 bits. The
    beats of a sum run from ``first`` to ``last``, have the same ``turns`` and, of a turn, different operand words; a
    beat that is both keeps nothing.

    Parameters
    ----------
    params        : ``segments`` (S), ``row_vectors`` (A), ``max_turns``, ``rows``.
    operand_words : words of the operand memory, A × 16 bytes each, 1 … 4096.

    Streams
    -------
    operand_write (in) : bytes for one lane of one word; always accepted, seen by beats taken in later cycles.
    beats (in)         : shapes.dot_beat; turns 0 … ``turns``. Sums longer than one beat have at most
                         ``accumulator_turns`` turns.
    results (out)      : shapes.dot_result, one a turn of a ``last`` beat, in order.

    Timing: a turn a cycle; a result is offered ``latency_cycles`` after its turn. The last turns of sums wait at the
    entrance while RESULT_SLOTS results are under way or not taken; the pipeline itself never stops.
    """

    latency_cycles = 2 + Dot16.latency_cycles

    def __init__(self, params: DesignParams, operand_words: int):
        if not 1 <= operand_words <= 1 << shapes.OPERAND_ADDRESS_BITS:
            raise ValueError(f"operand_words is {operand_words}; it must be 1 … {1 << shapes.OPERAND_ADDRESS_BITS}")
        self.params, self.operand_words = params, operand_words
        self.accumulator_turns = max(params.max_turns, -(-params.rows // params.row_vectors))
        super().__init__({
            "operand_write": In(stream.Signature(shapes.operand_write(params))),
            "beats": In(stream.Signature(shapes.dot_beat(params))),
            "results": Out(stream.Signature(shapes.dot_result(params))),
        })

    @staticmethod
    def interval_cycles(beats: int, turns: int) -> int:
        """Cycles that ``beats`` beats of ``turns`` turns take when nobody stalls."""
        return beats * turns

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.operand_write.ready.eq(1)
        beat = self.beats.p
        turn, offset = Signal(6), Signal(shapes.OPERAND_ADDRESS_BITS)
        issue, is_last_turn = Signal(), Signal()
        free, put, taken = Signal(range(RESULT_SLOTS + 1), init=RESULT_SLOTS), Signal(), Signal()
        m.d.comb += [
            issue.eq(self.beats.valid & (~beat.last | (free != 0))),
            is_last_turn.eq(turn == beat.turns),
            self.beats.ready.eq(is_last_turn & (~beat.last | (free != 0))),
        ]
        with m.If(issue):
            m.d.sync += [turn.eq(Mux(is_last_turn, 0, turn + 1)),
                         offset.eq(Mux(is_last_turn, 0, offset + beat.turn_stride))]
        m.d.sync += free.eq(free + taken - (issue & beat.last))

        # What travels with a turn to the accumulators.
        step_layout = data.StructLayout({"turn": 6, "first": 1, "last": 1, "tag": shapes.DOT_TAG_BITS})
        valid = Signal(1 + Dot16.latency_cycles)
        steps = [Signal(step_layout, name=f"step_{n}") for n in range(1 + Dot16.latency_cycles)]
        segments = Signal(data.ArrayLayout(8 * SEGMENT_BYTES, self.params.segments))
        late_segments = Signal(data.ArrayLayout(8 * SEGMENT_BYTES, self.params.segments))
        m.d.sync += valid.eq(issue | valid << 1)
        with m.If(issue):
            m.d.sync += [segments.eq(beat.data), steps[0].turn.eq(turn), steps[0].first.eq(beat.first),
                         steps[0].last.eq(beat.last), steps[0].tag.eq(beat.tag)]
        m.d.sync += [after.eq(before) for before, after in pairwise(steps)]
        m.d.comb += [late_segments[s].eq(skewed(m, f"segment_{s}", segments[s], valid))
                     for s in range(self.params.segments)]
        done = steps[-1]
        m.d.comb += put.eq(valid[-1] & done.last)

        slot_bits = bits_for(RESULT_SLOTS - 1)
        put_slot, take_slot, waiting = Signal(slot_bits), Signal(slot_bits), Signal(range(RESULT_SLOTS + 1))
        m.d.comb += [taken.eq(self.results.valid & self.results.ready), self.results.valid.eq(waiting != 0)]
        m.d.sync += [put_slot.eq(put_slot + put), take_slot.eq(take_slot + taken), waiting.eq(waiting + put - taken)]
        labels = data.StructLayout({"turn": 6, "tag": shapes.DOT_TAG_BITS})
        m.submodules.labels = store = memory.Memory(shape=labels, depth=RESULT_SLOTS, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(put), write.addr.eq(put_slot), write.data.turn.eq(done.turn), write.data.tag.eq(done.tag),
            read.addr.eq(take_slot), self.results.p.turn.eq(read.data.turn), self.results.p.tag.eq(read.data.tag),
        ]

        name = f"lane_pair_s{self.params.segments}_w{self.operand_words}_t{self.accumulator_turns}"
        for pair in range(self.params.row_vectors // LANES):
            lanes = LanePair(self.params, self.operand_words, self.accumulator_turns, RESULT_SLOTS)
            m.submodules[f"lanes_{pair}"] = SharedModule(lanes, name)
            written = [self.operand_write.valid & (self.operand_write.p.lane == LANES * pair + a) for a in range(LANES)]
            m.d.comb += [
                lanes.write_enable.eq(Cat(written)), lanes.write_word.eq(self.operand_write.p.address),
                lanes.write_mask.eq(self.operand_write.p.mask), lanes.write_data.eq(self.operand_write.p.data),
                lanes.read_enable.eq(issue), lanes.read_word.eq(beat.operand + offset),
                lanes.stages.eq(valid), lanes.segments.eq(late_segments),
                lanes.accumulate.eq(valid[-1]), lanes.turn.eq(done.turn), lanes.first.eq(done.first),
                lanes.last.eq(done.last), lanes.slot.eq(put_slot), lanes.result_slot.eq(take_slot),
            ]
            m.d.comb += [self.results.p.dots[LANES * pair + a].eq(lanes.result[a]) for a in range(LANES)]
        return m
