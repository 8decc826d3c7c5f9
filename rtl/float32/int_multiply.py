"""Integer multiplier in DSPs."""

from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class IntMultiply(wiring.Component):
    """``o = a · b``, exact, one product an enabled cycle.

    Parameters
    ----------
    a_bits, b_bits     : widths, 1 … 63.
    a_signed, b_signed : two's complement or unsigned.
    bits               : width kept of the product (the low bits; the caller knows its range).

    Streams: none; ``enable`` moves the pipeline (see the package).
    Timing: 3 cycles: a DSP's input, product and output registers.
    """

    latency_cycles = 3

    def __init__(self, a_bits: int, a_signed: bool, b_bits: int, b_signed: bool, bits: int):
        self.a_shape = Shape(a_bits, a_signed)
        self.b_shape = Shape(b_bits, b_signed)
        self.bits = bits
        super().__init__({"enable": In(1), "a": In(self.a_shape), "b": In(self.b_shape), "o": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        a, b = (Signal.like(port, name=f"{port.name}1", reset_less=True) for port in (self.a, self.b))
        product, o = Signal(self.bits, reset_less=True), Signal(self.bits, reset_less=True)
        with m.If(self.enable):
            m.d.sync += [a.eq(self.a), b.eq(self.b), product.eq(a * b), o.eq(product)]
        m.d.comb += self.o.eq(o)
        return m
