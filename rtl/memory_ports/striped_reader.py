"""Beats of striped memory: every port holds its share of each beat."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.memory_ports.axi4 import port_word
from rtl.memory_ports.chunker import Chunker
from rtl.memory_ports.word_fifo import word_fifo
from rtl.streams import shapes


class StripedReader(wiring.Component):
    """Reads whole beats through all ports; room for every word is reserved before it is asked for.

    Byte b of beat n lies on port p = b div port_bytes at ``base[p] + n·port_bytes + b mod port_bytes``.

    Parameters
    ----------
    params      : ``ports``, ``port_bytes``, ``address_bits``, ``burst_beats``.
    depth_beats : room, ≥ 2: beats asked for and not yet taken. Memory's latency times the rate wanted.

    Streams and signals
    -------------------
    request (in)         : ``beat`` (number of the first), ``beats``; zero beats are taken and forgotten. The next
                           request is taken while data of earlier ones is on its way.
    base (in)            : byte address of beat 0 on each port (multiple of port_bytes); stable while anything is read.
    port_request[p] (out), port_data[p] (in) : to port p's ReadPort; data is always accepted.
    data (out)           : beats in order, joined when every port has its word; ports may lag behind each other at will.

    Timing: a beat a cycle; port requests of at most ``chunk_beats`` beats, a new one every other cycle.
    """

    def __init__(self, params: DesignParams, depth_beats: int):
        if depth_beats < 2:
            raise ValueError(f"depth_beats is {depth_beats}; it must be ≥ 2")
        self.params, self.depth_beats = params, depth_beats
        self.chunk_beats = min(depth_beats // 2, max(params.burst_beats, 16))
        super().__init__({
            "request": In(stream.Signature(shapes.STRIPED_REQUEST)),
            "base": In(data.ArrayLayout(params.address_bits, params.ports)),
            "port_request": Out(stream.Signature(shapes.port_request(params))).array(params.ports),
            "port_data": In(stream.Signature(port_word(params))).array(params.ports),
            "data": Out(stream.Signature(8 * params.beat_bytes)),
        })

    def elaborate(self, platform):
        m = Module()
        word_log2 = self.params.port_bytes.bit_length() - 1
        # Chunks go to all ports together, so one account of the room serves all of them.
        m.submodules.chunker = chunker = Chunker(shapes.BEATS_BITS, self.chunk_beats, self.depth_beats)
        beat, pending = Signal(shapes.BEAT_ADDRESS_BITS), Signal(self.params.ports)
        issue, joined = Signal(), Signal()
        m.d.comb += [
            self.request.ready.eq(chunker.count.ready), chunker.count.valid.eq(self.request.valid),
            chunker.count.p.eq(self.request.p.beats), chunker.returned.eq(joined),
            chunker.chunk.ready.eq(~pending.any()), issue.eq(chunker.chunk.valid & chunker.chunk.ready),
        ]
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += beat.eq(self.request.p.beat)
        with m.If(issue):
            m.d.sync += beat.eq(beat + chunker.chunk.p)
        for p, request in enumerate(self.port_request):
            m.d.comb += request.valid.eq(pending[p])
            with m.If(request.ready):
                m.d.sync += pending[p].eq(0)
            with m.If(issue):
                m.d.sync += [request.p.address.eq(self.base[p] + (beat << word_log2)),
                             request.p.beats.eq(chunker.chunk.p), pending[p].eq(1)]

        queues = []
        for p, words in enumerate(self.port_data):
            queue = word_fifo(8 * self.params.port_bytes, self.depth_beats)
            m.submodules[f"queue_{p}"] = queue
            m.d.comb += [words.ready.eq(queue.w_rdy), queue.w_en.eq(words.valid), queue.w_data.eq(words.p.data),
                         queue.r_en.eq(joined)]
            queues.append(queue)
        m.d.comb += [
            self.data.valid.eq(Cat(queue.r_rdy for queue in queues).all()),
            self.data.p.eq(Cat(queue.r_data for queue in queues)),
            joined.eq(self.data.valid & self.data.ready),
        ]
        return m
