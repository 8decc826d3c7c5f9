"""Beats to striped memory: every port takes its share of each beat."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.streams import shapes


class StripedWriter(wiring.Component):
    """Writes whole beats through all ports.

    Byte b of beat n lies on port p = b div port_bytes at ``base[p] + n·port_bytes + b mod port_bytes``.

    Parameters
    ----------
    params : ``ports``, ``port_bytes``, ``address_bits``.

    Streams and signals
    -------------------
    request (in)      : ``beat`` (number of the first), ``beats``; zero beats are taken and forgotten.
    data (in)         : the requests' beats in order; ``strobe`` bit b enables byte b.
    base (in)         : byte address of beat 0 on each port (multiple of port_bytes); stable while anything is written.
    port_request[p], port_data[p] (out), port_idle (in, bit p) : to port p's WritePort.
    idle (out)        : every request is written and acknowledged on all ports.

    Timing: a beat a cycle, taken when the slowest port has taken its word.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "request": In(stream.Signature(shapes.STRIPED_REQUEST)),
            "data": In(stream.Signature(shapes.striped_write_word(params))),
            "base": In(data.ArrayLayout(params.address_bits, params.ports)),
            "port_request": Out(stream.Signature(shapes.port_request(params))).array(params.ports),
            "port_data": Out(stream.Signature(shapes.port_write_word(params))).array(params.ports),
            "port_idle": In(params.ports),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        ports, port_bytes = self.params.ports, self.params.port_bytes
        word_log2 = port_bytes.bit_length() - 1
        pending = Signal(ports)
        m.d.comb += [
            self.request.ready.eq(~pending.any()),
            self.idle.eq(~self.request.valid & ~pending.any() & self.port_idle.all()),
        ]
        for p, request in enumerate(self.port_request):
            m.d.comb += request.valid.eq(pending[p])
            with m.If(request.ready):
                m.d.sync += pending[p].eq(0)
            with m.If(self.request.valid & self.request.ready):
                m.d.sync += [request.p.address.eq(self.base[p] + (self.request.p.beat << word_log2)),
                             request.p.beats.eq(self.request.p.beats)]
        with m.If(self.request.valid & self.request.ready & (self.request.p.beats != 0)):
            m.d.sync += pending.eq(~0)

        # A port that has taken its word of this beat waits for the others.
        taken, done = Signal(ports), Signal(ports)
        for p, words in enumerate(self.port_data):
            m.d.comb += [
                words.valid.eq(self.data.valid & ~taken[p]),
                words.p.data.eq(self.data.p.data.word_select(p, 8 * port_bytes)),
                words.p.strobe.eq(self.data.p.strobe.word_select(p, port_bytes)),
                done[p].eq(taken[p] | words.ready),
            ]
        m.d.comb += self.data.ready.eq(done.all())
        with m.If(self.data.valid):
            m.d.sync += taken.eq(Mux(done.all(), 0, done))
        return m
