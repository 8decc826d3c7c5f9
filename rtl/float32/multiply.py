"""Float32 multiplier."""

from amaranth.hdl import C, Cat, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.float32.bits import Fields, Stage, wire


class FloatMultiply(wiring.Component):
    """``o = a · b`` in float32, one product an enabled cycle.

    Streams: none; ``enable`` moves the pipeline (see the package).
    Timing: 4 cycles: two DSPs' input, product and output registers, then rounding and packing.
    Number format and rounding: the package's. ∞ · 0 is NaN.
    """

    latency_cycles = 4

    enable: In(1)
    a: In(32)
    b: In(32)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        a, b = Fields(self.a), Fields(self.b)

        # 1 … 3: mantissas through the DSPs; a subnormal's product is thrown away at the end
        s = Stage(m, self.enable, 1, a=Cat(a.fraction, C(1, 1)), b=Cat(b.fraction, C(1, 1)),
                  exponent=a.exponent + b.exponent, sign=a.sign ^ b.sign, zero=a.is_zero | b.is_zero,
                  infinite=a.is_infinite_or_nan | b.is_infinite_or_nan,
                  nan=a.is_nan | b.is_nan | (a.is_infinite & b.is_zero) | (b.is_infinite & a.is_zero))
        s = Stage(m, self.enable, 2, product=s.a * s.b, exponent=(s.exponent + C(-127, 10))[:10],
                  sign=s.sign, zero=s.zero, infinite=s.infinite, nan=s.nan)
        s = Stage(m, self.enable, 3, product=s.product, exponent=s.exponent, least=s.exponent == 0,
                  sign=s.sign & ~s.nan, zero=s.zero | s.exponent[9], infinite=s.infinite, nan=s.nan)

        # 4: the product's highest bit is 47 or 46; it is zero by its exact value, infinite by its rounded one.
        # Fraction and exponent are one number: rounding carries into the exponent, and so does the 47th bit.
        high = s.product[47]
        fraction = wire(m, Mux(high, s.product[24:47], s.product[23:46]), "fraction")
        guard = Mux(high, s.product[23], s.product[22])
        sticky = s.product[:22].any() | (high & s.product[22])
        up = Cat(guard & (sticky | fraction[0]), C(0, 22), high)
        packed = wire(m, (Cat(fraction, s.exponent) + up)[:33], "packed")
        exponent = packed[23:]
        too_small = s.zero | (s.least & ~high)
        too_large = ~exponent[9] & (exponent[8] | exponent[:8].all())
        infinite = wire(m, s.infinite | (~too_small & too_large), "infinite")  # or NaN
        fraction = Mux(infinite | too_small, 0, packed[:23])
        s = Stage(m, self.enable, 4, fraction=fraction[:22], quiet=s.nan | fraction[22],
                  exponent=Mux(infinite, 255, Mux(too_small, 0, exponent[:8])), sign=s.sign)
        m.d.comb += self.o.eq(Cat(s.fraction, s.quiet, s.exponent, s.sign))
        return m
