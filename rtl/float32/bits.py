"""Fields of a float32 and small combinational circuits on them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

INFINITY = 0x7F800000
NAN = 0x7FC00000


class Fields:
    """Sign, exponent, fraction and class of the float32 behind ``bits``."""

    def __init__(self, bits: Value):
        self.bits = bits
        self.sign = bits[31]
        self.exponent = bits[23:31]
        self.fraction = bits[:23]
        self.is_zero = self.exponent == 0  # or subnormal
        self.is_infinite_or_nan = self.exponent.all()
        self.is_nan = self.is_infinite_or_nan & self.fraction.any()
        self.is_infinite = self.is_infinite_or_nan & ~self.fraction.any()


def canonical(bits: Value) -> Value:
    """Subnormals made zero, every NaN made 0x7FC00000."""
    f = Fields(bits)
    fraction = Mux(f.is_nan, NAN & 0x7FFFFF, f.fraction & (~f.is_zero).replicate(23))
    return Cat(fraction, f.exponent, f.sign & ~f.is_nan)


def canonical_is_nan(bits: Value) -> Value:
    """Whether a canonical float is NaN."""
    return bits[23:31].all() & bits[22]


def negate(bits: Value) -> Value:
    """−x of a canonical x."""
    return Cat(bits[:31], ~bits[31] & ~canonical_is_nan(bits))


def scale_exponent(bits: Value, power: int) -> Value:
    """x · 2**power of a canonical x; zero below 2⁻¹²⁶, infinity beyond the largest number."""
    f = Fields(bits)
    moved = f.exponent + Const(power, 9)
    kept = f.is_infinite_or_nan
    is_small = f.is_zero | (~kept & (moved <= 0 if power < 0 else Const(0)))
    is_large = ~f.is_zero & ~kept & (moved >= 255 if power > 0 else Const(0))
    exponent = Mux(kept | is_large, 255, Mux(is_small, 0, moved[:8]))
    return Cat(Mux(is_small | is_large, 0, f.fraction), exponent[:8], f.sign)


def wire(m: Module, value: Value, name: str) -> Signal:
    """A signal that carries ``value``: an expression used twice is built once."""
    signal = Signal(len(value), name=name)
    m.d.comb += signal.eq(value)
    return signal


class Stage:
    """Registers of a pipeline's stage: ``Stage(m, enable, 2, sum=a + b)`` is a register ``.sum`` as wide as a + b.

    Data needs no reset: without one, delays can be shift registers in LUTs.
    """

    def __init__(self, m: Module, enable: Value, number: int, **values: Value):
        for name, value in values.items():
            register = Signal(len(value), name=f"{name}{number}", reset_less=True)
            setattr(self, name, register)
            with m.If(enable):
                m.d.sync += register.eq(value)

    def __getattr__(self, name: str) -> Signal:  # for type checkers; attributes are set above
        raise AttributeError(name)


def leading_zeros(m: Module, value: Value) -> Value:
    """Number of zeros above the highest one of ``value``; len(value) if there is none."""
    size = 1 << max(0, len(value) - 1).bit_length()
    padding = size - len(value)
    count, is_zero = _leading_zeros(m, Cat(Const(-1, padding), value) if padding else value)
    return count if padding else Cat(count & (~is_zero).replicate(len(count)), is_zero)


def _leading_zeros(m: Module, value: Value) -> tuple[Value, Value]:
    """(count if any bit is set, whether none is) of a power-of-two width."""
    if len(value) == 1:
        return Const(0, 0), ~value
    half = len(value) // 2
    high_count, high_zero = _leading_zeros(m, value[half:])
    low_count, low_zero = _leading_zeros(m, value[:half])
    count_bits = max(0, half - 1).bit_length()
    count = Cat(Mux(high_zero, low_count, high_count)[:count_bits], high_zero) if count_bits else high_zero
    return wire(m, count, "zeros"), wire(m, high_zero & low_zero, "none")


def shift_right_sticky(m: Module, value: Value, amount: Value) -> tuple[Value, Value]:
    """``value >> amount`` and whether a one was shifted out."""
    width = len(value)
    lost = []
    for step in range(0, len(amount), 2):  # a LUT a bit, and what is lost waits for no half of a step
        digit = amount[step:step + 2]
        cuts = [min(n << step, width) for n in range(1 << len(digit))]
        lost += [(digit >= n) & value[cuts[n - 1]:cuts[n]].any() for n in range(1, len(cuts)) if cuts[n - 1] < width]
        shifted = value
        for n in range(1, len(cuts)):
            shifted = Mux(digit == n, value >> cuts[n], shifted)
        value = wire(m, shifted[:width], "shifted")
    return value, Cat(*lost).any()
