"""32-bit words of linear memory through one port."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.memory_ports.axi4 import port_word
from rtl.memory_ports.chunker import Chunker
from rtl.memory_ports.word_fifo import word_fifo
from rtl.streams import shapes


class LinearReader(wiring.Component):
    """Reads 32-bit words from any address that is a multiple of 4; room is reserved before words are asked for.

    Parameters
    ----------
    params      : ``port_bytes``, ``address_bits``, ``burst_beats``.
    depth_words : room in port words, ≥ 2: asked for and not yet emptied.
    requests    : requests whose words may be on their way at once, ≥ 1.

    Streams
    -------
    request (in)       : byte ``address``, ``words``; zero words are taken and forgotten.
    port_request (out), port_data (in) : to one ReadPort (port 0 holds linear memory); data is always accepted.
    data (out)         : words by rising address, request after request.

    Timing: a word a cycle, one cycle between requests.
    """

    def __init__(self, params: DesignParams, depth_words: int = 32, requests: int = 4):
        if depth_words < 2 or requests < 1:
            raise ValueError(f"depth_words is {depth_words}, requests is {requests}; they must be ≥ 2 and ≥ 1")
        self.params, self.depth_words, self.requests = params, depth_words, requests
        self.chunk_words = min(depth_words // 2, max(params.burst_beats, 16))
        super().__init__({
            "request": In(stream.Signature(shapes.linear_request(params))),
            "port_request": Out(stream.Signature(shapes.port_request(params))),
            "port_data": In(stream.Signature(port_word(params))),
            "data": Out(stream.Signature(32)),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self.params.port_bytes // 4
        lane_log2 = lanes.bit_length() - 1
        word_log2 = lane_log2 + 2
        count_bits = len(self.request.p.words)

        m.submodules.orders = orders = word_fifo(count_bits + lane_log2, self.requests)
        m.submodules.chunker = chunker = Chunker(count_bits + 1, self.chunk_words, self.depth_words)
        next_word = Signal(self.params.address_bits - word_log2)
        skip = self.request.p.address[2:word_log2]
        accept, issue, popped = Signal(), Signal(), Signal()
        m.d.comb += [
            self.request.ready.eq(chunker.count.ready & orders.w_rdy),
            accept.eq(self.request.valid & self.request.ready & (self.request.p.words != 0)),
            orders.w_en.eq(accept), orders.w_data.eq(self.request.p.words << lane_log2 | skip),
            chunker.count.valid.eq(accept), chunker.count.p.eq((self.request.p.words + skip + lanes - 1) >> lane_log2),
            chunker.returned.eq(popped), chunker.chunk.ready.eq(~self.port_request.valid),
            issue.eq(chunker.chunk.valid & chunker.chunk.ready),
        ]
        with m.If(accept):
            m.d.sync += next_word.eq(self.request.p.address[word_log2:])
        with m.If(self.port_request.ready):
            m.d.sync += self.port_request.valid.eq(0)
        with m.If(issue):
            m.d.sync += [
                self.port_request.valid.eq(1), self.port_request.p.address.eq(next_word << word_log2),
                self.port_request.p.beats.eq(chunker.chunk.p), next_word.eq(next_word + chunker.chunk.p),
            ]

        m.submodules.queue = queue = word_fifo(8 * self.params.port_bytes, self.depth_words)
        m.d.comb += [self.port_data.ready.eq(queue.w_rdy), queue.w_en.eq(self.port_data.valid),
                     queue.w_data.eq(self.port_data.p.data), queue.r_en.eq(popped)]

        left, lane = Signal(count_bits), Signal(max(lane_log2, 1))
        m.d.comb += [self.data.valid.eq((left != 0) & queue.r_rdy), self.data.p.eq(queue.r_data.word_select(lane, 32))]
        with m.If(left == 0):
            m.d.comb += orders.r_en.eq(1)
            with m.If(orders.r_rdy):
                m.d.sync += [left.eq(orders.r_data[lane_log2:]), lane.eq(orders.r_data[:lane_log2])]
        with m.Elif(self.data.valid & self.data.ready):
            m.d.sync += [left.eq(left - 1), lane.eq(Mux(lane == lanes - 1, 0, lane + 1))]
            m.d.comb += popped.eq((lane == lanes - 1) | (left == 1))
        return m
