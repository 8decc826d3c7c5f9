"""Integer to float32."""

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.float32.bits import leading_zeros

MANTISSA_BITS = 24


class FloatFromInt(wiring.Component):
    """``o = float32(a)``, one conversion an enabled cycle.

    Parameters
    ----------
    bits   : width of the integer, 1 … 64.
    signed : two's complement or unsigned.

    Streams: none; ``enable`` moves the pipeline (see the package).
    Timing: a magnitude (signed only), a count of zeros, a shift, and a rounding if the magnitude has more than 24 bits:
    2 … 4 cycles.
    Rounding: to nearest even, once.
    """

    def __init__(self, bits: int, signed: bool):
        if not 1 <= bits <= 64:
            raise ValueError(f"bits is {bits}; it must be 1 … 64")
        self.bits = bits
        self.signed = signed
        self.latency_cycles = self.latency(bits, signed)
        super().__init__({"enable": In(1), "a": In(Shape(bits, signed)), "o": Out(32)})

    @staticmethod
    def latency(bits: int, signed: bool) -> int:
        return 2 + signed + (bits > MANTISSA_BITS)

    def elaborate(self, platform):
        m = Module()
        step = []
        bits = self.bits
        magnitude, sign = self.a, C(0, 1)
        if self.signed:
            sign1, magnitude1 = Signal(), Signal(bits)
            flip = self.a[-1]
            step += [sign1.eq(flip), magnitude1.eq((Cat(flip, self.a ^ flip.replicate(bits)) + flip)[1:])]
            sign, magnitude = sign1, magnitude1

        zeros = leading_zeros(m, magnitude)
        zeros2, magnitude2, sign2 = Signal(len(zeros)), Signal(bits), Signal()
        step += [zeros2.eq(zeros), magnitude2.eq(magnitude), sign2.eq(sign)]

        width = max(bits, MANTISSA_BITS)
        shifted = Signal(width)
        m.d.comb += shifted.eq((Cat(C(0, width - bits), magnitude2) << zeros2)[:width])
        exponent = (127 + bits - 1) - zeros2
        if bits <= MANTISSA_BITS:
            step += [self.o.eq(Cat(shifted[:23], Mux(shifted[-1], exponent[:8], 0), sign2))]
        else:
            shifted3, exponent3, sign3 = Signal(width), Signal(8), Signal()
            step += [shifted3.eq(shifted), exponent3.eq(Mux(shifted[-1], exponent[:8], 0)), sign3.eq(sign2)]
            mantissa, rest = shifted3[width - MANTISSA_BITS:], shifted3[:width - MANTISSA_BITS]
            rounded = Signal(MANTISSA_BITS + 1)
            m.d.comb += rounded.eq(mantissa + (rest[-1] & (rest[:-1].any() | mantissa[0])))
            step += [self.o.eq(Cat(rounded[:23], (exponent3 + rounded[24])[:8], sign3))]

        with m.If(self.enable):
            m.d.sync += step
        return m
