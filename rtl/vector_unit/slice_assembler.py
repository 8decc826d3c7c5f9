"""Words of codes to K slices that need not start or end on a word."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.number_formats import SEGMENT_BYTES, bits_for


class SliceAssembler(wiring.Component):
    """Slices of N int8 out of words of W: slice = elements offset … offset + N − 1 of the words given for it.

    Parameters
    ----------
    lanes          : W, elements of a word.
    slice_elements : N ≥ 1.

    Streams
    -------
    i : ``data`` W int8, ``zero``: they count as zeros; ``offset`` of the slice's first element in its first word,
        ``first`` and ``last`` word of the slice, ``final``: handed on.
        A slice is ``slice_words(offset)`` words, a segment (N = 16, offset 0) 16/W.
    o : ``slice`` N int8 from the low byte, or ``segment`` 16 int8, whichever the words were for; ``final``.

    Timing: a word a cycle; a slice is out one cycle after its last word.
    """

    def __init__(self, lanes: int, slice_elements: int):
        self.lanes, self.slice_elements = lanes, slice_elements
        offset = bits_for(lanes - 1)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "data": data.ArrayLayout(8, lanes), "zero": 1, "offset": offset, "first": 1, "last": 1, "final": 1}))),
            "o": Out(stream.Signature(data.StructLayout({
                "slice": 8 * slice_elements, "segment": 8 * SEGMENT_BYTES, "final": 1}))),
        })

    def slice_words(self, offset: int) -> int:
        """Words that a slice takes; one more than it has where it starts within a word."""
        return -(-self.slice_elements // self.lanes) + int(offset > 0)

    def elaborate(self, platform):
        m = Module()
        word_bits = 8 * self.lanes
        chunks = -(-self.slice_elements // self.lanes)
        depth_bits = max(chunks * word_bits, 8 * SEGMENT_BYTES)
        held, before = Signal(depth_bits), Signal(word_bits)
        word = Signal(word_bits)
        chunk = Signal(word_bits)
        offset = self.i.p.offset
        m.d.comb += [
            self.i.ready.eq(~self.o.valid | self.o.ready),
            word.eq(Mux(self.i.p.zero, 0, self.i.p.data)),
            # A slice that starts within a word takes each chunk from two words.
            chunk.eq(Mux(offset == 0, word, Cat(before, word) >> (8 * offset))),
            self.o.p.slice.eq(held[depth_bits - chunks * word_bits:][:8 * self.slice_elements]),
            self.o.p.segment.eq(held[depth_bits - 8 * SEGMENT_BYTES:]),
        ]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(0)
            with m.If(self.i.valid):
                m.d.sync += [before.eq(word), self.o.valid.eq(self.i.p.last), self.o.p.final.eq(self.i.p.final)]
                with m.If(~self.i.p.first | (offset == 0)):
                    m.d.sync += held.eq(Cat(held[word_bits:], chunk))
        return m
