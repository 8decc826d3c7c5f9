"""Writes runs of 32-bit words to linear memory through one port."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.streams import shapes


def word_run(params: DesignParams) -> data.StructLayout:
    """A run of ``words`` 32-bit words to byte ``address``, a multiple of the port's width."""
    return data.StructLayout({"address": params.address_bits, "words": 16})


class WordWriter(wiring.Component):
    """Gathers the words of each run into port words; the last one is strobed.

    Streams
    -------
    run (in)   : address and number of words, ≥ 1.
    words (in) : the runs' words in order.
    port_request, port_data (out) : to a WritePort.
    busy       : a run is under way (its words not all handed to the port).

    Timing: a word a cycle, two cycles between runs.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "run": In(stream.Signature(word_run(params))), "words": In(stream.Signature(32)),
            "port_request": Out(stream.Signature(shapes.port_request(params))),
            "port_data": Out(stream.Signature(shapes.port_write_word(params))),
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self.params.port_bytes // 4
        lane, left = Signal(range(lanes)), Signal(16)
        gathered, strobe = Signal(8 * self.params.port_bytes), Signal(self.params.port_bytes)
        full = Signal()
        m.d.comb += [self.port_data.valid.eq(full), self.port_data.p.data.eq(gathered),
                     self.port_data.p.strobe.eq(strobe)]

        asking = Signal()
        m.d.comb += [
            self.busy.eq((left != 0) | full | asking),
            self.run.ready.eq(~self.busy), self.port_request.valid.eq(asking),
            self.words.ready.eq((left != 0) & (~full | self.port_data.ready)),
        ]
        with m.If(self.port_request.ready):
            m.d.sync += asking.eq(0)
        with m.If(self.run.valid & self.run.ready):
            m.d.sync += [
                asking.eq(1), left.eq(self.run.p.words), lane.eq(0), strobe.eq(0),
                self.port_request.p.address.eq(self.run.p.address),
                self.port_request.p.beats.eq((self.run.p.words + lanes - 1) >> (lanes.bit_length() - 1)),
            ]
        with m.If(self.port_data.ready):
            m.d.sync += full.eq(0)
            with m.If(full):
                m.d.sync += strobe.eq(0)
        with m.If(self.words.valid & self.words.ready):
            m.d.sync += [left.eq(left - 1), lane.eq(Mux(lane == lanes - 1, 0, lane + 1))]
            for n in range(lanes):
                with m.If(lane == n):
                    m.d.sync += [gathered.word_select(n, 32).eq(self.words.payload),
                                 strobe.word_select(n, 4).eq(0xF)]
            with m.If((left == 1) | (lane == lanes - 1)):
                m.d.sync += full.eq(1)
        return m
