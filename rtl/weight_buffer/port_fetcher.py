"""Asks one port for its share of the weight stream, as far ahead as the ring has room."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.memory_ports.chunker import Chunker
from rtl.memory_ports.word_fifo import word_fifo
from rtl.streams import shapes

EXTENT_BEATS_BITS = 32


def port_extent(params: DesignParams) -> data.StructLayout:
    """One port's part of an extent: ``beats`` words from byte ``address``."""
    return data.StructLayout({"beats": EXTENT_BEATS_BITS, "address": params.address_bits})


class PortFetcher(wiring.Component):
    """Turns a queue of extents into requests to the port; each asks only for words that have room in the ring.

    Parameters
    ----------
    params : ``ring_words``, ``burst_beats``, ``address_bits``, ``port_bytes``.
    queue  : extents that wait, ≥ 1.

    Streams and signals
    -------------------
    extents (in)       : this port's parts, fetched one after the other without waiting for anything but room.
    port_request (out) : to the ReadPort, at most ``chunk_words`` a request.
    returned (in)      : a word left the ring, so there is room for another.
    held_back (out)    : words are wanted and the ring has no room.
    idle (out)         : every extent has been fetched and every word has left the ring.

    Timing: a request every other cycle, one cycle between extents.
    """

    def __init__(self, params: DesignParams, queue: int = 4):
        if queue < 1:
            raise ValueError(f"queue is {queue}; it must be ≥ 1")
        self.params, self.queue = params, queue
        self.chunk_words = min(max(params.burst_beats, 16), params.ring_words // 4)
        super().__init__({
            "extents": In(stream.Signature(port_extent(params))),
            "port_request": Out(stream.Signature(shapes.port_request(params))),
            "returned": In(1), "held_back": Out(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        word_log2 = self.params.port_bytes.bit_length() - 1
        layout = port_extent(self.params)
        m.submodules.waiting = waiting = word_fifo(layout.size, self.queue)
        extent = Signal(layout)
        m.submodules.chunker = chunker = Chunker(EXTENT_BEATS_BITS, self.chunk_words, self.params.ring_words)
        next_word, issue = Signal(self.params.address_bits - word_log2), Signal()
        m.d.comb += [
            self.extents.ready.eq(waiting.w_rdy), waiting.w_en.eq(self.extents.valid),
            waiting.w_data.eq(self.extents.p), extent.eq(waiting.r_data),
            chunker.count.valid.eq(waiting.r_rdy), chunker.count.p.eq(extent.beats),
            waiting.r_en.eq(chunker.count.ready), chunker.returned.eq(self.returned),
            chunker.chunk.ready.eq(~self.port_request.valid), issue.eq(chunker.chunk.valid & chunker.chunk.ready),
            self.held_back.eq(chunker.held_back), self.idle.eq(~waiting.r_rdy & chunker.idle & chunker.all_free),
        ]
        with m.If(chunker.count.valid & chunker.count.ready):
            m.d.sync += next_word.eq(extent.address[word_log2:])
        with m.If(self.port_request.ready):
            m.d.sync += self.port_request.valid.eq(0)
        with m.If(issue):
            m.d.sync += [
                self.port_request.valid.eq(1), self.port_request.p.address.eq(next_word << word_log2),
                self.port_request.p.beats.eq(chunker.chunk.p), next_word.eq(next_word + chunker.chunk.p),
            ]
        return m
