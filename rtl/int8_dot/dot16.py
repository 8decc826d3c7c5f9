"""The multipliers of the int8 array: one segment against two row-vectors."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.number_formats import SEGMENT_BYTES

LANES = 2
SUM_BITS = 20
"""Sixteen products of two int8, −128 included."""


class Dot16(wiring.Component):
    """``dots[a] = Σ_i segment[i]·operands[a][i]``, i = 0 … 15, int8, exact.

    The boundary for another realisation: the two row-vectors of a pair can share a DSP48E2
    (operands[0] + operands[1]·2¹⁸ times segment, cascades of at most 8, which needs one side within ±127).

    Ports: ``enable`` marks a cycle with operands; without it the stages behind keep their values, which saves power and
    simulation time. Timing: ``dots`` follow ``latency_cycles`` later; a new operand set every cycle.
    """

    latency_cycles = 3

    def __init__(self):
        super().__init__({
            "enable": In(1), "segment": In(8 * SEGMENT_BYTES),
            "operands": In(data.ArrayLayout(8 * SEGMENT_BYTES, LANES)),
            "dots": Out(data.ArrayLayout(signed(SUM_BITS), LANES)),
        })

    def elaborate(self, platform):
        m = Module()
        stage = Signal(2)
        m.d.sync += stage.eq(self.enable | stage << 1)
        for lane in range(LANES):
            products = [Signal(signed(16), name=f"product_{lane}_{i}") for i in range(SEGMENT_BYTES)]
            quarters = [Signal(signed(18), name=f"quarter_{lane}_{i}") for i in range(4)]
            with m.If(self.enable):
                m.d.sync += [p.eq(self.segment.word_select(i, 8).as_signed()
                                  * self.operands[lane].word_select(i, 8).as_signed()) for i, p in enumerate(products)]
            with m.If(stage[0]):
                m.d.sync += [q.eq(sum(products[4 * i:4 * i + 4], start=0)) for i, q in enumerate(quarters)]
            with m.If(stage[1]):
                m.d.sync += self.dots[lane].eq(sum(quarters, start=0))
        return m
