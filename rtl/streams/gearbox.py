"""Between streams of words that hold different numbers of elements."""

from math import gcd

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.number_formats import bits_for


class Gearbox(wiring.Component):
    """Words of ``inputs`` elements to words of ``outputs`` elements; element order is kept.

    A *row* of N elements goes in as ceil(N/inputs) words and comes out as ceil(N/outputs) words; each row starts at
    element 0 of a word on both sides.

    Parameters
    ----------
    element_bits : width of an element in bits, ≥ 1.
    inputs       : Q, elements of an input word, ≥ 1.
    outputs      : W, elements of an output word, ≥ 1. Q and W need not divide one another.
    pads         : False where rows are whole words of W, or what is beyond their end doesn't matter.

    Streams
    -------
    i : ``data`` Q elements, ``count`` how many of them count, from element 0 (Q unless ``last``), ``last`` on a row's
        final word. ``count`` ≥ 1.
    o : ``data`` W elements, zeros beyond the row's end if ``pads``, ``last`` on a row's final word.

    Timing: ``latency_cycles`` from the word that completes an output to that output; rows follow one another every
    ``interval_cycles(N)`` when nobody stalls. ``i.ready`` follows ``o.ready`` within the cycle.
    """

    latency_cycles = 1

    def __init__(self, element_bits: int, inputs: int, outputs: int, pads: bool = True):
        for name, value in (("element_bits", element_bits), ("inputs", inputs), ("outputs", outputs)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be ≥ 1")
        self.element_bits, self.inputs, self.outputs, self.pads = element_bits, inputs, outputs, pads
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "data": data.ArrayLayout(element_bits, inputs), "count": bits_for(inputs), "last": 1}))),
            "o": Out(stream.Signature(data.StructLayout({
                "data": data.ArrayLayout(element_bits, outputs), "last": 1}))),
        })

    def interval_cycles(self, elements: int) -> int:
        """Cycles from one row of ``elements`` elements to the next, neither side stalling."""
        if self.inputs >= self.outputs:
            return -(-elements // self.outputs)
        words = -(-elements // self.inputs)
        # Where the last input word completes one output and begins another, the row takes a cycle more.
        before = (words - 1) * self.inputs
        return words + int(before % self.outputs + (elements - before) > self.outputs)

    def elaborate(self, platform):
        m = Module()
        q, w = self.inputs, self.outputs
        depth = q + w - 1
        held = Array(Signal(self.element_bits, name=f"held_{n}") for n in range(depth))
        level = Signal(range(depth + 1))
        ends = Signal()  # the row's last element is held

        m.d.comb += [
            self.o.valid.eq((level >= w) | ends),
            self.o.p.last.eq(ends & (level <= w)),
            *(self.o.p.data[n].eq(Mux(level > n, held[n], 0) if self.pads else held[n]) for n in range(w)),
        ]
        given = Signal()
        over = Signal()
        kept = Signal(range(depth + 1))
        m.d.comb += [
            given.eq(self.o.valid & self.o.ready),
            over.eq(given & self.o.p.last),
            kept.eq(Mux(over, 0, Mux(given, level - w, level))),
            self.i.ready.eq((~ends | over) & (kept < w)),
        ]
        taken = Signal()
        m.d.comb += taken.eq(self.i.valid & self.i.ready)
        m.d.sync += level.eq(kept + Mux(taken, self.i.p.count, 0))
        with m.If(taken):
            m.d.sync += ends.eq(self.i.p.last)
        with m.Elif(over):
            m.d.sync += ends.eq(0)

        with m.If(given):
            for n in range(depth - w):
                m.d.sync += held[n].eq(held[n + w])
        # Words are whole but for a row's last, so what is kept is a multiple of gcd(Q, W), below W.
        with m.If(taken):
            with m.Switch(kept):
                for start in range(0, w, gcd(q, w)):
                    with m.Case(start):
                        for n in range(q):
                            m.d.sync += held[start + n].eq(self.i.p.data[n])
        return m
