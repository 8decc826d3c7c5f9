"""Two row-vector lanes of the int8 array: operands, multipliers, accumulators and results."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for
from rtl.int8_dot.dot16 import LANES, Dot16, skewed
from rtl.streams.shared_module import SharedModule


class LanePair(wiring.Component):
    """Lanes a = 0, 1: ``sum[turn][a][s] (+)= Σ_i segment[s][i]·operand[word][a][i]``.

    Parameters
    ----------
    params           : ``segments``.
    operand_words    : words of the operand memory, 16 bytes a lane each. No sum meets one of them twice, which says how
                       wide sums are.
    accumulator_turns: sums that can be kept between beats.
    result_slots     : finished sums that can wait.

    Ports, by pipeline stage (the engine keeps them in step)
    --------------------------------------------------------
    write  : ``write_enable`` (bit a: lane a), byte ``write_mask``.
    read   : ``read_enable``, ``read_word``.
    multiply : from the cycle after on: ``stages`` and ``segments`` as Dot16 takes them; operands are skewed here.
    accumulate : ``latency_cycles`` of Dot16 later: ``accumulate``, ``turn``, ``first``, ``last``, ``slot`` of a
        last sum.
    result : ``result_slot`` → ``result``, same cycle.
    """

    def __init__(self, params: DesignParams, operand_words: int, accumulator_turns: int, result_slots: int):
        self.segments_per_beat = params.segments
        self.operand_words, self.accumulator_turns = operand_words, accumulator_turns
        self.result_slots = result_slots
        self.sum_bits = min(32, bits_for(operand_words * SEGMENT_BYTES * 127 * 128) + 1)
        word_bits, slot_bits = bits_for(operand_words - 1), bits_for(result_slots - 1)
        super().__init__({
            "write_enable": In(LANES), "write_word": In(word_bits), "write_mask": In(SEGMENT_BYTES),
            "write_data": In(8 * SEGMENT_BYTES),
            "read_enable": In(1), "read_word": In(word_bits),
            "stages": In(Dot16.latency_cycles), "segments": In(data.ArrayLayout(8 * SEGMENT_BYTES, params.segments)),
            "accumulate": In(1), "turn": In(bits_for(accumulator_turns - 1)), "first": In(1), "last": In(1),
            "slot": In(slot_bits),
            "result_slot": In(slot_bits),
            "result": Out(data.ArrayLayout(data.ArrayLayout(signed(32), params.segments), LANES)),
        })

    def elaborate(self, platform):
        m = Module()
        dots: list[Dot16] = []
        read_operands, operands = (Signal(data.ArrayLayout(8 * SEGMENT_BYTES, LANES), name=name)
                                   for name in ("read_operands", "operands"))
        for a in range(LANES):
            m.submodules[f"operands_{a}"] = store = memory.Memory(
                shape=8 * SEGMENT_BYTES, depth=self.operand_words, init=[])
            write, read = store.write_port(granularity=8), store.read_port()
            m.d.comb += [
                write.en.eq(Mux(self.write_enable[a], self.write_mask, 0)), write.addr.eq(self.write_word),
                write.data.eq(self.write_data),
                read.en.eq(self.read_enable), read.addr.eq(self.read_word), read_operands[a].eq(read.data),
            ]
        m.d.comb += [operands[a].eq(skewed(m, f"operand_{a}", read_operands[a], self.stages)) for a in range(LANES)]
        for s in range(self.segments_per_beat):
            dot = Dot16()
            m.submodules[f"dot_{s}"] = SharedModule(dot, "dot16")
            m.d.comb += [dot.stages.eq(self.stages), dot.segment.eq(self.segments[s]), dot.operands.eq(operands)]
            dots.append(dot)

        # Sums are read, added to and written in one cycle, so turns may follow one another at any distance.
        for a in range(LANES):
            sums = data.ArrayLayout(signed(self.sum_bits), self.segments_per_beat)
            m.submodules[f"sums_{a}"] = kept = memory.Memory(shape=sums, depth=self.accumulator_turns, init=[])
            m.submodules[f"results_{a}"] = results = memory.Memory(shape=sums, depth=self.result_slots, init=[])
            old, update = kept.read_port(domain="comb"), kept.write_port()
            put, take = results.write_port(), results.read_port(domain="comb")
            new = Signal(sums)
            m.d.comb += [
                old.addr.eq(self.turn), update.addr.eq(self.turn), update.data.eq(new),
                update.en.eq(self.accumulate & ~self.last),
                put.addr.eq(self.slot), put.data.eq(new), put.en.eq(self.accumulate & self.last),
                take.addr.eq(self.result_slot),
                *(self.result[a][s].eq(take.data[s]) for s in range(self.segments_per_beat)),
            ]
            for s in range(self.segments_per_beat):
                # one adder: the carry enters it below the lowest bit
                before = Cat(1, Mux(self.first, 0, old.data[s])).as_signed()
                m.d.comb += new[s].eq((before + Cat(dots[s].carry if a else 0, dots[s].sums[a]).as_signed()) >> 1)
        return m
