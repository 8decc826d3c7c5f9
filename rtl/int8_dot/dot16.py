"""The multipliers of the int8 array: one segment against two row-vectors, two products to a DSP48E2."""

from amaranth.hdl import Cat, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.number_formats import SEGMENT_BYTES

LANES = 2
FIELD_BITS = 19
"""Of the lower lane's sum in the cascade: 16·127·128 < 2¹⁸, so that it stays within, and the upper operand still
fits the 27 bits of a pre-adder."""
SUM_BITS = FIELD_BITS + 1


def skewed(m: Module, name: str, segment: Value, stages: Value) -> Value:
    """``segment``, byte i delayed by i cycles; ``stages`` as Dot16's."""
    late: list[Value] = [segment]  # of the bytes that are this late or later
    for k in range(1, SEGMENT_BYTES):
        later = Signal(8 * (SEGMENT_BYTES - k), name=f"{name}_late_{k}")
        with m.If(stages[k - 1]):
            m.d.sync += later.eq(late[-1][8:])
        late.append(later)
    return Cat(after[:8] for after in late)


class Cascade(wiring.Component):
    """``total = Σ_i segment[i]·(operands[0][i] + operands[1][i]·2¹⁹)``, i = 0 … 15: sixteen DSP48E2, cascaded.

    Byte i's DSP: ``factor`` is its B register, ``both`` its pre-adder's (A and D at its inputs, AD register),
    ``product`` its M register and ``total`` its P register, which adds the P of the DSP below over PCIN → PCOUT.
    Ports and timing: as Dot16's.
    """

    def __init__(self):
        super().__init__({
            "stages": In(Dot16.latency_cycles), "segment": In(8 * SEGMENT_BYTES),
            "operands": In(data.ArrayLayout(8 * SEGMENT_BYTES, LANES)), "total": Out(signed(FIELD_BITS + SUM_BITS)),
        })

    def elaborate(self, platform):
        m = Module()
        totals: list[Signal] = []
        for i in range(SEGMENT_BYTES):
            factor, both = Signal(signed(8), name=f"factor_{i}"), Signal(signed(FIELD_BITS + 8), name=f"both_{i}")
            product = Signal(signed(FIELD_BITS + 16), name=f"product_{i}")
            total = Signal(signed(FIELD_BITS + SUM_BITS), name=f"total_{i}")
            low, high = (lane.word_select(i, 8).as_signed() for lane in self.operands)
            with m.If(self.stages[i]):
                m.d.sync += [factor.eq(self.segment.word_select(i, 8)), both.eq(low + (high << FIELD_BITS))]
            with m.If(self.stages[i + 1]):
                m.d.sync += product.eq(both * factor)
            with m.If(self.stages[i + 2]):
                m.d.sync += total.eq(product + totals[-1] if totals else product)
            totals.append(total)
        m.d.comb += self.total.eq(totals[-1])
        return m


class Dot16(wiring.Component):
    """``dots[a] = Σ_i segment[i]·operands[a][i]``, i = 0 … 15, int8, exact for operands in −127 … 127.

    (operands[0] + operands[1]·2¹⁹)·segment holds both products, and a cascade of sixteen DSPs adds them; the sum's
    upper field is too small by one where the lower one is negative, so that

        dots[0] = sums[0], dots[1] = sums[1] + carry

    where the carry is left to the adder behind.

    Ports
    -----
    stages            : bit k: a set of operands began to arrive k cycles ago. Stages without one keep their values,
                        which saves power and simulation time.
    segment, operands : byte i arrives i cycles after the set's first.
    sums, carry       : ``latency_cycles`` after the set's first byte; a new set may begin every cycle.
    """

    latency_cycles = SEGMENT_BYTES + 2

    def __init__(self):
        super().__init__({
            "stages": In(self.latency_cycles), "segment": In(8 * SEGMENT_BYTES),
            "operands": In(data.ArrayLayout(8 * SEGMENT_BYTES, LANES)),
            "sums": Out(data.ArrayLayout(signed(SUM_BITS), LANES)), "carry": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.cascade = cascade = Cascade()
        total = cascade.total
        m.d.comb += [
            cascade.stages.eq(self.stages), cascade.segment.eq(self.segment), cascade.operands.eq(self.operands),
            self.sums[0].eq(total[:FIELD_BITS].as_signed()), self.sums[1].eq(total[FIELD_BITS:].as_signed()),
            self.carry.eq(total[FIELD_BITS - 1]),
        ]
        return m
