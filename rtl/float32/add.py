"""Float32 adder."""

from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.float32.bits import INFINITY, NAN, Fields, leading_zeros, shift_right_sticky, wire


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
        step = []

        # 1: which is larger, by how much; infinities and NaN
        a, b = Fields(self.a), Fields(self.b)
        a1, b1, a_smaller, difference = Signal(32), Signal(32), Signal(), Signal(9)
        nan1, infinite1 = Signal(), Signal()
        step += [
            a1.eq(self.a), b1.eq(self.b),
            a_smaller.eq(self.a[:31] < self.b[:31]),
            difference.eq(a.exponent - b.exponent),
            nan1.eq(a.is_nan | b.is_nan | (a.is_infinite & b.is_infinite & (a.sign ^ b.sign))),
            infinite1.eq(a.is_infinite_or_nan | b.is_infinite_or_nan),
        ]

        # 2: the larger and the smaller one's mantissa, distance of their exponents
        large = wire(m, Mux(a_smaller, b1, a1), "large")
        small = wire(m, Mux(a_smaller, a1, b1), "small")
        distance = wire(m, Mux(a_smaller, -difference, difference)[:8], "distance")
        exponent2, large2, small2, shift2 = Signal(8), Signal(24), Signal(24), Signal(5)
        sign2, zero_sign2, subtract2, nan2, infinite2 = (Signal(name=f"{n}2") for n in
                                                        ("sign", "zero_sign", "subtract", "nan", "infinite"))
        step += [
            exponent2.eq(large[23:31]), large2.eq(_mantissa(large)), small2.eq(_mantissa(small)),
            shift2.eq(distance[:5] | distance[5:].any().replicate(5)),
            sign2.eq(large[31]), zero_sign2.eq(a1[31] & b1[31]), subtract2.eq(a1[31] ^ b1[31]),
            nan2.eq(nan1), infinite2.eq(infinite1),
        ]

        # 3: align; two bits below the mantissa and a sticky one
        aligned, lost = shift_right_sticky(m, Cat(C(0, 2), small2), shift2)
        exponent3, large3, small3 = Signal(8), Signal(27), Signal(27)
        sign3, zero_sign3, subtract3, nan3, infinite3 = (Signal(name=f"{n}3") for n in
                                                        ("sign", "zero_sign", "subtract", "nan", "infinite"))
        step += [exponent3.eq(exponent2), large3.eq(Cat(C(0, 3), large2)), small3.eq(Cat(lost, aligned)),
                 sign3.eq(sign2), zero_sign3.eq(zero_sign2), subtract3.eq(subtract2),
                 nan3.eq(nan2), infinite3.eq(infinite2)]

        # 4: add; the lowest position makes the carry in
        added = Cat(subtract3, large3) + Cat(subtract3, small3 ^ subtract3.replicate(27))
        exponent4, sum4 = Signal(8), Signal(28)
        sign4, zero_sign4, nan4, infinite4 = (Signal(name=f"{n}4") for n in ("sign", "zero_sign", "nan", "infinite"))
        step += [exponent4.eq(exponent3), sum4.eq(Cat(added[1:28], added[28] & ~subtract3)),
                 sign4.eq(sign3), zero_sign4.eq(zero_sign3), nan4.eq(nan3), infinite4.eq(infinite3)]

        # 5: the sum's highest bit is 27, 26 or 25: round there; below: count zeros
        mantissa = Mux(sum4[27], sum4[4:28], Mux(sum4[26], sum4[3:27], sum4[2:26]))
        guard = Mux(sum4[27], sum4[3], Mux(sum4[26], sum4[2], sum4[1]))
        sticky = sum4[0] | ((sum4[27] | sum4[26]) & sum4[1]) | (sum4[27] & sum4[2])
        round_up = guard & (sticky | mantissa[0])
        rounded5, exponent5, cancelled5 = Signal(25), Signal(9), Signal()
        rest5, zeros5, rest_exponent5 = Signal(23), Signal(5), Signal(9)
        sign5, zero_sign5, nan5, infinite5 = (Signal(name=f"{n}5") for n in ("sign", "zero_sign", "nan", "infinite"))
        step += [
            rounded5.eq(mantissa + round_up),
            exponent5.eq(exponent4 + Mux(sum4[27], C(1, 9), Mux(sum4[26], C(0, 9), C(-1, 9)))),
            cancelled5.eq(sum4[25:] == 0),
            rest5.eq(sum4[2:25]), zeros5.eq(leading_zeros(m, sum4[2:25])), rest_exponent5.eq(exponent4 - 2),
            sign5.eq(sign4), zero_sign5.eq(zero_sign4), nan5.eq(nan4), infinite5.eq(infinite4),
        ]

        # 6: normalise what was cancelled, choose, pack
        rest = (rest5 << zeros5)[:23]
        rest_exponent = wire(m, rest_exponent5.as_signed() - zeros5, "rest_exponent").as_signed()
        is_zero = rest5 == 0
        exponent = wire(m, Mux(cancelled5, rest_exponent, exponent5.as_signed() + rounded5[24]), "exponent").as_signed()
        too_small = Mux(cancelled5, is_zero | (rest_exponent <= 0), exponent5.as_signed() <= 0)
        too_large = exponent >= 255
        fraction = Mux(cancelled5, Cat(C(0, 1), rest[:22]), rounded5[:23])
        sign = Mux(cancelled5 & is_zero, zero_sign5, sign5)
        result = Mux(nan5, NAN, Cat(
            Mux(infinite5 | too_large, INFINITY, Mux(too_small, 0, Cat(fraction, exponent[:8]))), sign))
        step += [self.o.eq(result)]

        with m.If(self.enable):
            m.d.sync += step
        return m


def _mantissa(bits):
    """24 bits with the hidden one; 0 for a subnormal."""
    is_normal = bits[23:31].any()
    return Cat(bits[:23] & is_normal.replicate(23), is_normal)
