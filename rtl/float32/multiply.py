"""Float32 multiplier."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.float32.bits import INFINITY, NAN, Fields


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
        step = []
        a, b = Fields(self.a), Fields(self.b)

        # 1 … 3: mantissas through the DSPs; a subnormal's product is thrown away at the end
        a1, b1, product2, product3 = Signal(24), Signal(24), Signal(48), Signal(48)
        step += [a1.eq(Cat(a.fraction, 1)), b1.eq(Cat(b.fraction, 1)), product2.eq(a1 * b1), product3.eq(product2)]

        exponent1, exponent2, exponent3, exponent3_up = Signal(9), Signal(10), Signal(10), Signal(10)
        step += [exponent1.eq(a.exponent + b.exponent), exponent2.eq(exponent1 + Const(-127, 10)),
                 exponent3.eq(exponent2), exponent3_up.eq(exponent2 + 1)]

        now = [a.sign ^ b.sign, a.is_zero | b.is_zero, a.is_infinite_or_nan | b.is_infinite_or_nan,
               a.is_nan | b.is_nan | (a.is_infinite & b.is_zero) | (b.is_infinite & a.is_zero)]
        for stage in (1, 2, 3):
            names = ("sign", "zero", "infinite", "nan")
            later = [Signal(name=f"{name}{stage}") for name in names]
            step += [register.eq(value) for register, value in zip(later, now)]
            now = later
        sign3, zero3, infinite3, nan3 = now

        # 4: highest bit of the product is 47 or 46
        high = product3[47]
        mantissa, rounded = Signal(24), Signal(25)
        guard = Mux(high, product3[23], product3[22])
        sticky = product3[:22].any() | (high & product3[22])
        m.d.comb += [mantissa.eq(Mux(high, product3[24:], product3[23:47])),
                     rounded.eq(mantissa + (guard & (sticky | mantissa[0])))]
        before, exponent = Signal(10), Signal(10)  # two's complement; a product is zero by its exact value
        m.d.comb += [before.eq(Mux(high, exponent3_up, exponent3)), exponent.eq(before + rounded[24])]
        too_small = zero3 | before[9] | (before == 0)
        too_large = ~exponent[9] & (exponent >= 255)
        step += [self.o.eq(Mux(nan3, NAN, Cat(
            Mux(infinite3, INFINITY, Mux(too_small, 0, Mux(too_large, INFINITY, Cat(rounded[:23], exponent[:8])))),
            sign3)))]

        with m.If(self.enable):
            m.d.sync += step
        return m
