"""Memories of words of W float32, and how a stream looks something up in one."""

from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.weight_buffer.uram_bank import UramBank

READ_LATENCY = 2


def read_port(depth: int, shape) -> wiring.Signature:
    """Read port as its user sees it: ``data`` belongs to the address of READ_LATENCY enabled cycles ago."""
    return wiring.Signature({"enable": Out(1), "address": Out(range(depth)), "data": In(shape)})


def write_port(depth: int, shape) -> wiring.Signature:
    return wiring.Signature({"enable": Out(1), "address": Out(range(depth)), "data": Out(shape)})


class WordMemory(wiring.Component):
    """Memory of ``depth`` words of ``shape`` with one read and one write port.

    Parameters
    ----------
    style : what to build it from, as in ``UramBank``.

    Timing: ``read.data`` follows by READ_LATENCY cycles in which ``read.enable`` is high and holds in others; a read
    sees writes of earlier cycles; reading and writing one address in one cycle gives rubbish.
    Contents after power-up are unspecified: suits block RAM and UltraRAM.
    """

    def __init__(self, depth: int, shape, style: str = "block"):
        if depth < 2:
            raise ValueError(f"depth is {depth}; it must be ≥ 2")
        self.depth, self.shape, self.style = depth, shape, style
        super().__init__({"read": In(read_port(depth, shape)), "write": In(write_port(depth, shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bank = bank = UramBank(Shape.cast(self.shape).width, self.depth, style=self.style)
        m.d.comb += [
            bank.read_enable.eq(self.read.enable), bank.read_address.eq(self.read.address),
            bank.write_enable.eq(self.write.enable), bank.write_address.eq(self.write.address),
            bank.write_data.eq(self.write.data),
        ]
        with m.If(self.read.enable):
            m.d.sync += self.read.data.eq(bank.read_data)
        return m


class Lookup(wiring.Component):
    """A stream takes along what a memory holds for it: o.context = i.context, with the read data beside it.

    Parameters
    ----------
    context : shape of what travels along.

    Streams: ``i`` and ``o`` of ``context``, one for one.
    ``enable`` is the memory's read enable; the address (of ``i.p``) and the data (which belongs to ``o.p`` whenever
    ``o.valid``) are wired by the user, who may look up several memories at once.

    Timing: READ_LATENCY cycles; a stall holds the memory's registers, so nobody else may read it meanwhile.
    """

    latency_cycles = READ_LATENCY

    def __init__(self, context):
        super().__init__({"i": In(stream.Signature(context)), "o": Out(stream.Signature(context)), "enable": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(self.enable)]
        valid, payload = self.i.valid, self.i.p
        with m.If(self.enable):
            for stage in range(READ_LATENCY - 1):
                next_valid = Signal(name=f"valid_{stage}")
                next_payload = Signal(self.i.p.shape(), name=f"payload_{stage}")
                m.d.sync += [next_valid.eq(valid), next_payload.eq(payload)]
                valid, payload = next_valid, next_payload
            m.d.sync += [self.o.valid.eq(valid), self.o.p.eq(payload)]
        return m


def float_words(lanes: int) -> data.ArrayLayout:
    """A word of ``lanes`` float32 bit patterns."""
    return data.ArrayLayout(32, lanes)
