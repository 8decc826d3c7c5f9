"""Float32 to integer or fixed point, saturating."""

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.float32.bits import Fields, shift_right_sticky

MANTISSA_BITS = 24


class FloatToFixed(wiring.Component):
    """``o = clamp(rint(a · 2**fraction_bits), low … high)``; NaN gives 0; one conversion an enabled cycle.

    Parameters
    ----------
    fraction_bits : bits below the point of the result, −64 … 64.
    low, high     : the result's range, low ≤ 0 ≤ high, at most 40 bits.

    Streams: none; ``enable`` moves the pipeline (see the package).
    Timing: 3 cycles: distance, shift, round and clamp; negative results of more than 16 bits take a fourth.
    Rounding: to nearest, ties to even.
    """

    def __init__(self, fraction_bits: int, low: int, high: int):
        if not low <= 0 <= high or high == low:
            raise ValueError(f"{low} … {high} is no range that holds 0")
        self.fraction_bits = fraction_bits
        self.low = low
        self.high = high
        self.magnitude_bits = max(high, -low).bit_length()
        if not -64 <= fraction_bits <= 64 or self.magnitude_bits > 40:
            raise ValueError(f"fraction_bits is {fraction_bits}, the range {low} … {high}: beyond this converter")
        self.latency_cycles = self.latency(low, high)
        bits = (high if low == 0 else max(high, ~low)).bit_length() + (low < 0)
        super().__init__({"enable": In(1), "a": In(32), "o": Out(Shape(bits, low < 0))})

    @staticmethod
    def latency(low: int, high: int) -> int:
        return 4 if low < 0 and max(high, -low).bit_length() > 16 else 3

    def elaborate(self, platform):
        m = Module()
        step = []
        bits = self.magnitude_bits
        a = Fields(self.a)

        # 1: the mantissa's highest bit goes to position bits−1 of the integer, less ``distance``
        one_exponent = 127 - self.fraction_bits  # biased exponent of a number that becomes 1
        distance = Signal(range(one_exponent - 512, one_exponent + 512))
        m.d.comb += distance.eq((one_exponent + bits - 1) - a.exponent)
        shift_bits = (bits + 1).bit_length()
        mantissa1, shift1 = Signal(24), Signal(shift_bits)
        sign1, large1, zero1 = Signal(), Signal(), Signal()
        step += [
            mantissa1.eq(Cat(a.fraction, 1)), shift1.eq(distance), sign1.eq(a.sign), large1.eq(distance < 0),
            zero1.eq(a.is_nan | a.is_zero | (distance > bits)),
        ]

        # 2: shift; a guard bit and a sticky one below the integer
        width = max(bits + 1, MANTISSA_BITS)
        shifted, lost = shift_right_sticky(m, Cat(C(0, width - MANTISSA_BITS), mantissa1), shift1)
        below = width - bits
        integer2, guard2, sticky2 = Signal(bits), Signal(), Signal()
        sign2, large2, zero2 = Signal(), Signal(), Signal()
        step += [
            integer2.eq(shifted[below:]), guard2.eq(shifted[below - 1]), sticky2.eq(shifted[:below - 1].any() | lost),
            sign2.eq(sign1), large2.eq(large1), zero2.eq(zero1),
        ]

        # 3: round and clamp
        rounded = Signal(bits + 1)
        m.d.comb += rounded.eq(integer2 + (guard2 & (sticky2 | integer2[0])))
        limit = self.high if self.low == -self.high else Mux(sign2, -self.low, self.high)
        clamped = Signal(bits)
        m.d.comb += clamped.eq(Mux(zero2, 0, Mux(large2 | (rounded > limit), limit, rounded)))
        if self.low == 0:
            step += [self.o.eq(clamped)]
        elif self.latency_cycles == 3:
            step += [self.o.eq(Mux(sign2, -clamped, clamped))]
        else:
            sign3, clamped3 = Signal(), Signal(bits)
            step += [sign3.eq(sign2), clamped3.eq(clamped), self.o.eq(Mux(sign3, -clamped3, clamped3))]

        with m.If(self.enable):
            m.d.sync += step
        return m
