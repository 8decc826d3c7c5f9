"""A queue between two streams."""

from amaranth.hdl import Module, Shape
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

LUTRAM_DEPTH = 64
"""Deeper queues go to block RAM; their first payload comes out two cycles after it went in, not one."""


class Queue(wiring.Component):
    """``depth`` payloads of ``shape``; one in and one out a cycle. ``i`` is taken whenever there is room."""

    def __init__(self, shape, depth: int):
        self.shape, self.depth = shape, depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        width = Shape.cast(self.shape).width
        kind = SyncFIFO if self.depth <= LUTRAM_DEPTH else SyncFIFOBuffered
        m.submodules.fifo = fifo = kind(width=width, depth=self.depth)
        payload_in, payload_out = self.i.payload, self.o.payload
        m.d.comb += [
            fifo.w_data.eq(payload_in), fifo.w_en.eq(self.i.valid), self.i.ready.eq(fifo.w_rdy),
            self.o.valid.eq(fifo.r_rdy), fifo.r_en.eq(self.o.ready),
        ]
        m.d.comb += (payload_out.as_value() if hasattr(payload_out, "as_value") else payload_out).eq(fifo.r_data)
        return m
