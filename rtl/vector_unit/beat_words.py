"""Beats of memory to words of W elements, one holding a whole number of the other."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


class BeatWords(wiring.Component):
    """The bits of a record's beats as words, low bits first.

    Parameters
    ----------
    beat_bits, word_bits : one must be a multiple of the other.

    Streams
    -------
    i : ``data`` of a beat, ``last`` of the record.
    o : ``data`` of a word, ``last`` of the record (its last word is filled up with zeros).

    Timing: a beat stays at ``i`` while its words leave, one a cycle; no cycle is lost between beats. Where words are
    longer, a word leaves with its last beat. No registers but for the words' beginnings: what feeds ``i`` holds beats.
    """

    def __init__(self, beat_bits: int, word_bits: int):
        if beat_bits % word_bits and word_bits % beat_bits:
            raise ValueError(f"beat_bits {beat_bits} and word_bits {word_bits}: one must be a multiple of the other")
        self.beat_bits, self.word_bits = beat_bits, word_bits
        self.words_per_beat = max(1, beat_bits // word_bits)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"data": beat_bits, "last": 1}))),
            "o": Out(stream.Signature(data.StructLayout({"data": word_bits, "last": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        parts, joins = self.words_per_beat, max(1, self.word_bits // self.beat_bits)
        part = Signal(range(max(parts, joins)))
        if joins == 1:
            part_last = part == parts - 1
            m.d.comb += [
                self.o.valid.eq(self.i.valid), self.o.p.data.eq(self.i.p.data.word_select(part, self.word_bits)),
                self.o.p.last.eq(self.i.p.last & part_last), self.i.ready.eq(self.o.ready & part_last),
            ]
            with m.If(self.o.valid & self.o.ready):
                m.d.sync += part.eq(part + 1)
                with m.If(part_last):
                    m.d.sync += part.eq(0)
            return m

        beginning = Signal(self.word_bits - self.beat_bits)
        completes = (part == joins - 1) | self.i.p.last
        word = Signal(self.word_bits)
        with m.Switch(part):
            for n in range(joins):
                with m.Case(n):
                    m.d.comb += word.eq(Cat(beginning[:n * self.beat_bits], self.i.p.data, Const(0, 1)))
        m.d.comb += [
            self.o.valid.eq(self.i.valid & completes), self.o.p.data.eq(word), self.o.p.last.eq(self.i.p.last),
            self.i.ready.eq(~completes | self.o.ready),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [part.eq(part + 1), beginning.eq(word)]
            with m.If(completes):
                m.d.sync += part.eq(0)
        return m
