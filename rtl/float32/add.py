"""Float32 adder."""

from amaranth.hdl import C, Cat, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.float32.bits import Fields, Stage, leading_zeros, shift_right_sticky, wire


class FloatAdd(wiring.Component):
    """``o = a + b`` in float32, one sum an enabled cycle (a − b: flip b's sign bit, also on a NaN).

    Streams: none; ``enable`` moves the pipeline (see the package).
    Timing: 6 cycles: compare, swap, align, add, count zeros and round, normalise and pack.
    Number format and rounding: the package's. x + (−x) is +0; −0 + −0 is −0.
    Source: the textbook two-path adder. Cancellation of two bits or more happens only where exponents differ by at
    most one, and is exact: that result is shifted and needs no rounding, all others are rounded and need no shift.
    """

    latency_cycles = 6

    enable: In(1)
    a: In(32)
    b: In(32)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()

        # 1: which is larger, by how much; infinities and NaN
        a, b = Fields(self.a), Fields(self.b)
        s = Stage(m, self.enable, 1, a=self.a, b=self.b, a_smaller=self.a[:31] < self.b[:31],
                  difference=(a.exponent - b.exponent)[:9],
                  nan=a.is_nan | b.is_nan | (a.is_infinite & b.is_infinite & (a.sign ^ b.sign)),
                  infinite=a.is_infinite_or_nan | b.is_infinite_or_nan)

        # 2: the larger and the smaller one's mantissa, distance of their exponents
        large = wire(m, Mux(s.a_smaller, s.b, s.a), "large")
        small = wire(m, Mux(s.a_smaller, s.a, s.b), "small")
        distance = wire(m, (s.a_smaller + (s.difference ^ s.a_smaller.replicate(9)))[:8], "distance")
        s = Stage(m, self.enable, 2, exponent=large[23:31], large=_mantissa(large), small=_mantissa(small),
                  shift=distance[:5] | distance[5:].any().replicate(5),
                  sign=large[31], zero_sign=s.a[31] & s.b[31], subtract=s.a[31] ^ s.b[31],
                  nan=s.nan, infinite=s.infinite)

        # 3: align; two bits below the mantissa and a sticky one
        aligned, lost = shift_right_sticky(m, Cat(C(0, 2), s.small), s.shift)
        s = Stage(m, self.enable, 3, exponent=s.exponent, large=Cat(C(0, 3), s.large), small=Cat(lost, aligned),
                  sign=s.sign, zero_sign=s.zero_sign, subtract=s.subtract, nan=s.nan, infinite=s.infinite)

        # 4: add; the lowest position makes the carry in
        added = wire(m, Cat(s.subtract, s.large) + Cat(s.subtract, s.small ^ s.subtract.replicate(27)), "added")
        s = Stage(m, self.enable, 4, exponent=s.exponent, sum=Cat(added[1:28], added[28] & ~s.subtract),
                  sign=s.sign, zero_sign=s.zero_sign, nan=s.nan, infinite=s.infinite)

        # 5: the sum's highest bit is 27, 26 or 25: round there; below: count zeros
        top, next_top = s.sum[27], s.sum[26]
        fraction = wire(m, Mux(top, s.sum[4:27], Mux(next_top, s.sum[3:26], s.sum[2:25])), "fraction")
        guard = Mux(top, s.sum[3], Mux(next_top, s.sum[2], s.sum[1]))
        sticky = s.sum[0] | ((top | next_top) & s.sum[1]) | (top & s.sum[2])
        # fraction and exponent are one number, so that rounding carries; beside it 1, 0 or −1 goes to the exponent
        neither = ~top & ~next_top
        up = Cat(guard & (sticky | fraction[0]), C(0, 22), ~next_top | top, neither.replicate(8))
        s = Stage(m, self.enable, 5, packed=(Cat(fraction, s.exponent) + up)[:32],
                  cancelled=s.sum[25:] == 0, rest=s.sum[2:25], zeros=leading_zeros(m, s.sum[2:25]),
                  rest_exponent=(s.exponent - 2)[:9], sign=s.sign & ~s.nan, zero_sign=s.zero_sign & ~s.nan,
                  nan=s.nan, infinite=s.infinite)

        # 6: normalise what was cancelled, choose, pack
        rest = (s.rest << s.zeros)[:23]
        rest_exponent = wire(m, s.rest_exponent.as_signed() - s.zeros, "rest_exponent").as_signed()
        is_zero = s.rest == 0
        exponent = s.packed[23:]  # of what was not cancelled, at least 0; what is below 1 was not rounded
        too_small = Mux(s.cancelled, is_zero | (rest_exponent <= 0), exponent == 0)
        infinite = wire(m, s.infinite | (~s.cancelled & (exponent[8] | exponent[:8].all())), "infinite")  # or NaN
        fraction = Mux(s.cancelled, Cat(C(0, 1), rest[:22]), s.packed[:23])
        finite_exponent = Mux(s.cancelled, rest_exponent[:8], exponent[:8])
        kept = Mux(infinite | too_small, 0, fraction)
        s = Stage(m, self.enable, 6, fraction=kept[:22], quiet=s.nan | kept[22],
                  exponent=Mux(infinite, 255, Mux(too_small, 0, finite_exponent)),
                  sign=Mux(s.cancelled & is_zero, s.zero_sign, s.sign))
        m.d.comb += self.o.eq(Cat(s.fraction, s.quiet, s.exponent, s.sign))
        return m


def _mantissa(bits):
    """24 bits with the hidden one; 0 for a subnormal."""
    is_normal = bits[23:31].any()
    return Cat(bits[:23] & is_normal.replicate(23), is_normal)
