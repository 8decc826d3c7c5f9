"""The ring of one port, where fetched words wait until every port has its part of the beat."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.memory_ports.axi4 import port_word
from rtl.memory_ports.word_fifo import word_fifo
from rtl.weight_buffer.uram_bank import UramBank, style_for

LUTRAM_WORDS = 64


class PortRing(wiring.Component):
    """A queue of ``ring_words`` port words in one memory. Whoever fills it sets room aside first.

    Parameters
    ----------
    params : ``ring_words`` (a power of two), ``port_bytes``.

    Streams and signals
    -------------------
    fill (in)    : words as they come from memory; always ready, because room was set aside.
    word (out)   : the words in order.
    moved (out)  : a word left the memory towards ``word``: there is room for another.
    empty (out)  : no word is on its way from the memory or offered (words in the memory have their room taken).

    Timing: a word in and one out each cycle; ``latency_cycles`` from ``fill`` to ``word``.
    """

    read_latency = 2
    # A word enters the memory, is read, and passes the short queue behind it.
    latency_cycles = 2 + read_latency

    def __init__(self, params: DesignParams):
        self.params, self.depth = params, params.ring_words
        super().__init__({
            "fill": In(stream.Signature(port_word(params))),
            "word": Out(stream.Signature(8 * params.port_bytes)),
            "moved": Out(1), "empty": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        width = 8 * self.params.port_bytes
        style = style_for(self.depth) if self.depth > LUTRAM_WORDS else "auto"
        m.submodules.bank = bank = UramBank(width, self.depth, self.read_latency, style)

        stored = Signal(range(self.depth + 1))
        produce, consume = Signal(range(self.depth)), Signal(range(self.depth))
        read = Signal()
        m.d.comb += [
            self.fill.ready.eq(1),
            bank.write_enable.eq(self.fill.valid), bank.write_data.eq(self.fill.p.data), bank.write_address.eq(produce),
            bank.read_enable.eq(read), bank.read_address.eq(consume),
        ]
        with m.If(self.fill.valid):
            m.d.sync += produce.eq(produce + 1)
        with m.If(read):
            m.d.sync += consume.eq(consume + 1)
        m.d.sync += stored.eq(stored + self.fill.valid - read)

        # Words under way from the bank have their place in a short queue.
        places = self.read_latency + 2
        m.submodules.queue = queue = word_fifo(width, places)
        held, given = Signal(range(places + 1)), Signal()
        arriving = Signal(self.read_latency)
        m.d.sync += [arriving.eq(arriving << 1 | read), held.eq(held + read - given)]
        m.d.comb += [
            read.eq((stored != 0) & (held != places)),
            queue.w_en.eq(arriving[-1]), queue.w_data.eq(bank.read_data),
            self.word.valid.eq(queue.r_rdy), self.word.p.eq(queue.r_data), queue.r_en.eq(self.word.ready),
            given.eq(self.word.valid & self.word.ready),
            self.moved.eq(read), self.empty.eq(held == 0),
        ]
        return m
