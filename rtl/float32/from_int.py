"""Integer to float32."""

from amaranth.hdl import C, Cat, Module, Mux, Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.float32.bits import Stage, leading_zeros, wire

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
        bits = self.bits
        magnitude, sign = self.a, C(0, 1)
        if self.signed:
            flip = self.a[-1]
            s = Stage(m, self.enable, 1, sign=flip,
                      magnitude=(Cat(flip, self.a ^ flip.replicate(bits)) + flip)[1:bits + 1])
            magnitude, sign = s.magnitude, s.sign

        s = Stage(m, self.enable, 2, zeros=leading_zeros(m, magnitude), magnitude=magnitude, sign=sign)

        width = max(bits, MANTISSA_BITS)
        shifted = wire(m, (Cat(C(0, width - bits), s.magnitude) << s.zeros)[:width], "shifted")
        exponent = Mux(shifted[-1], ((127 + bits - 1) - s.zeros)[:8], 0)
        if bits <= MANTISSA_BITS:
            s = Stage(m, self.enable, 3, o=Cat(shifted[:23], exponent, s.sign))
        else:
            s = Stage(m, self.enable, 3, shifted=shifted, exponent=exponent, sign=s.sign)
            mantissa, rest = s.shifted[width - MANTISSA_BITS:], s.shifted[:width - MANTISSA_BITS]
            # fraction and exponent are one number, so that rounding carries
            rounded = wire(m, Cat(mantissa[:23], s.exponent) + (rest[-1] & (rest[:-1].any() | mantissa[0])), "rounded")
            s = Stage(m, self.enable, 4, o=Cat(rounded[:31], s.sign))
        m.d.comb += self.o.eq(s.o)
        return m
