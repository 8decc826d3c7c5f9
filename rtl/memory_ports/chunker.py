"""Chunks of a request, each handed out only when there is room for all of its words."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Chunker(wiring.Component):
    """Cuts counts of words into chunks of at most ``chunk_words`` and sets room aside for each.

    Parameters
    ----------
    count_bits  : width of a count.
    chunk_words : words of a chunk at most, 1 … depth_words.
    depth_words : room in all.

    Streams and signals
    -------------------
    count (in)     : words to ask for; zero is taken and forgotten. The next is taken when the last chunk is given out.
    chunk (out)    : words of the next chunk, offered as soon as there is room. Taking it takes the room.
    returned (in)  : room for one word is free again.
    held_back (out): there are words to ask for and no room.
    idle (out)     : nothing left to ask for.
    all_free (out) : no room is taken.

    Timing: a chunk every ``interval_cycles``.
    """

    interval_cycles = 2

    def __init__(self, count_bits: int, chunk_words: int, depth_words: int):
        if not 1 <= chunk_words <= depth_words:
            raise ValueError(f"chunk_words is {chunk_words}; it must be 1 … depth_words ({depth_words})")
        self.count_bits, self.chunk_words, self.depth_words = count_bits, chunk_words, depth_words
        super().__init__({
            "count": In(stream.Signature(count_bits)), "chunk": Out(stream.Signature(range(chunk_words + 1))),
            "returned": In(1), "held_back": Out(1), "idle": Out(1), "all_free": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        remaining, measured = Signal(self.count_bits), Signal()
        free, taken = Signal(range(self.depth_words + 1), init=self.depth_words), Signal()
        has_room = free >= self.chunk.p
        m.d.comb += [
            self.idle.eq(remaining == 0), self.count.ready.eq(self.idle), self.all_free.eq(free == self.depth_words),
            self.chunk.valid.eq(measured & has_room), self.held_back.eq(measured & ~has_room),
            taken.eq(self.chunk.valid & self.chunk.ready),
        ]
        m.d.sync += free.eq(free + self.returned - Mux(taken, self.chunk.p, 0))
        with m.If(self.idle):
            with m.If(self.count.valid):
                m.d.sync += remaining.eq(self.count.p)
        with m.Elif(~measured):
            # A step of its own: together with what follows it would be too long for a cycle.
            m.d.sync += measured.eq(1)
            m.d.sync += self.chunk.p.eq(Mux(remaining < self.chunk_words, remaining, self.chunk_words))
        with m.Elif(taken):
            m.d.sync += [remaining.eq(remaining - self.chunk.p), measured.eq(0)]
        return m
