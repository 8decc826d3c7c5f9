"""Float32 to integer or fixed point, saturating."""

from amaranth.hdl import C, Cat, Module, Mux, Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.float32.bits import Fields, Stage, shift_right_sticky, wire

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
        bits = self.magnitude_bits
        a = Fields(self.a)

        # 1: the mantissa's highest bit goes to position bits−1 of the integer, less ``distance``
        distance = (127 - self.fraction_bits + bits - 1) - a.exponent
        s = Stage(m, self.enable, 1, mantissa=Cat(a.fraction, C(1, 1)), shift=distance[:(bits + 1).bit_length()],
                  sign=a.sign, large=distance < 0, zero=a.is_nan | a.is_zero | (distance > bits))

        # 2: shift; a guard bit and a sticky one below the integer
        width = max(bits + 1, MANTISSA_BITS)
        below = width - bits
        shifted, lost = shift_right_sticky(m, Cat(C(0, width - MANTISSA_BITS), s.mantissa), s.shift)
        s = Stage(m, self.enable, 2, integer=shifted[below:], guard=shifted[below - 1],
                  sticky=shifted[:below - 1].any() | lost, sign=s.sign, large=s.large, zero=s.zero)

        # 3: round and clamp
        rounded = wire(m, s.integer + (s.guard & (s.sticky | s.integer[0])), "rounded")
        limit = self.high if self.low == -self.high else Mux(s.sign, -self.low, self.high)
        clamped = wire(m, Mux(s.zero, 0, Mux(s.large | (rounded > limit), limit, rounded))[:bits], "clamped")
        if self.low == 0:
            s = Stage(m, self.enable, 3, o=clamped)
        elif self.latency_cycles == 3:
            s = Stage(m, self.enable, 3, o=Mux(s.sign, -clamped, clamped))
        else:
            s = Stage(m, self.enable, 3, sign=s.sign, clamped=clamped)
            s = Stage(m, self.enable, 4, o=Mux(s.sign, -s.clamped, s.clamped))
        m.d.comb += self.o.eq(s.o)
        return m
