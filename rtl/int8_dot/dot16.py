"""The multipliers of the int8 array: one segment against two row-vectors, two products to a DSP48E2."""

from amaranth.hdl import Cat, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.number_formats import SEGMENT_BYTES

LANES = 2
CHAIN = 8
"""Products that a cascade of DSPs adds: 8·127·128 < 2¹⁷, so that the lower lane's sum stays within its field."""
CHAINS = SEGMENT_BYTES // CHAIN
FIELD_BITS = 18
SUM_BITS = 20


def skewed(m: Module, name: str, segment: Value, stages: Value) -> Value:
    """``segment``, byte i delayed by i mod CHAIN cycles; ``stages`` as Dot16's."""
    late = {0: segment}
    for k in range(1, CHAIN):
        # of the bytes that are this late or later; the others' registers go unused
        late[k] = Signal(8 * SEGMENT_BYTES, name=f"{name}_late_{k}")
        with m.If(stages[k - 1]):
            m.d.sync += [late[k].word_select(i, 8).eq(late[k - 1].word_select(i, 8))
                         for i in range(SEGMENT_BYTES) if i % CHAIN >= k]
    return Cat(late[i % CHAIN].word_select(i, 8) for i in range(SEGMENT_BYTES))


class Cascade(wiring.Component):
    """``total = Σ_i segment[i]·(operands[0][i] + operands[1][i]·2¹⁸)``, i = 0 … 7: eight DSP48E2, cascaded.

    Byte i's DSP: ``factor`` is its B register, ``both`` its pre-adder's (A and D at its inputs, AD register),
    ``product`` its M register and ``total`` its P register, which adds the P of the DSP below over PCIN → PCOUT.
    Ports and timing: as Dot16's; ``total`` is CHAIN + 2 cycles late.
    """

    def __init__(self):
        super().__init__({
            "stages": In(CHAIN + 2), "segment": In(8 * CHAIN), "operands": In(data.ArrayLayout(8 * CHAIN, LANES)),
            "total": Out(signed(2 * FIELD_BITS + 2)),
        })

    def elaborate(self, platform):
        m = Module()
        totals: list[Signal] = []
        for i in range(CHAIN):
            factor, both = Signal(signed(8), name=f"factor_{i}"), Signal(signed(FIELD_BITS + 9), name=f"both_{i}")
            product = Signal(signed(FIELD_BITS + 17), name=f"product_{i}")
            total = Signal(signed(2 * FIELD_BITS + 2), name=f"total_{i}")
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

    (operands[0] + operands[1]·2¹⁸)·segment holds both products; two cascades of eight DSPs add them, and a sum's upper
    field is too small by one where the lower one is negative.

    Ports
    -----
    stages            : bit k: a set of operands began to arrive k cycles ago. Stages without one keep their values,
                        which saves power and simulation time.
    segment, operands : byte i arrives i mod CHAIN cycles after the set's first.
    dots              : ``latency_cycles`` after the set's first byte; a new set may begin every cycle.
    """

    latency_cycles = CHAIN + 3

    def __init__(self):
        super().__init__({
            "stages": In(self.latency_cycles), "segment": In(8 * SEGMENT_BYTES),
            "operands": In(data.ArrayLayout(8 * SEGMENT_BYTES, LANES)),
            "dots": Out(data.ArrayLayout(signed(SUM_BITS), LANES)),
        })

    def elaborate(self, platform):
        m = Module()
        sums: list[Value] = []
        for chain in range(CHAINS):
            m.submodules[f"cascade_{chain}"] = cascade = Cascade()
            m.d.comb += [
                cascade.stages.eq(self.stages), cascade.segment.eq(self.segment.word_select(chain, 8 * CHAIN)),
                *(cascade.operands[a].eq(self.operands[a].word_select(chain, 8 * CHAIN)) for a in range(LANES)),
            ]
            sums.append(cascade.total)
        with m.If(self.stages[-1]):
            m.d.sync += [
                self.dots[0].eq(sum(total[:FIELD_BITS].as_signed() for total in sums)),
                self.dots[1].eq(sum(total[FIELD_BITS:].as_signed() + total[FIELD_BITS - 1] for total in sums)),
            ]
        return m
