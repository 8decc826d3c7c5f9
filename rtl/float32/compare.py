"""Comparing canonical float32 values: combinational."""

from amaranth.hdl import Cat, Module, Mux, Value

from rtl.float32.bits import NAN, canonical_is_nan, wire


def sort_key(bits: Value) -> Value:
    """Unsigned integer that orders as the float does, −0 < +0; NaN is above +∞; never 0."""
    return Cat(bits[:31] ^ bits[31].replicate(31), ~bits[31])


def from_sort_key(key: Value) -> Value:
    """The float32 bits behind a key."""
    return Cat(key[:31] ^ (~key[31]).replicate(31), ~key[31])


def maximum(m: Module, a: Value, b: Value) -> Value:
    """The larger, −0 < +0; NaN if either is NaN."""
    return Mux(sort_key(a) > sort_key(b), a, b)  # NaN has the largest key


def minimum(m: Module, a: Value, b: Value) -> Value:
    """The smaller, −0 < +0; NaN if either is NaN."""
    nan = canonical_is_nan(a) | canonical_is_nan(b)
    return Mux(nan, NAN, Mux(sort_key(a) < sort_key(b), a, b))


def less(m: Module, a: Value, b: Value) -> Value:
    """a < b; −0 equals +0, NaN is not less than anything, nor anything less than NaN."""
    return ~_unordered(a, b) & ~_both_zero(a, b) & (sort_key(a) < sort_key(b))


def less_equal(m: Module, a: Value, b: Value) -> Value:
    """a ≤ b; −0 equals +0, false with a NaN."""
    return ~_unordered(a, b) & (_both_zero(a, b) | (sort_key(a) <= sort_key(b)))


def equal(m: Module, a: Value, b: Value) -> Value:
    """a == b; −0 equals +0, false with a NaN."""
    return ~_unordered(a, b) & (_both_zero(a, b) | (wire(m, a, "a") == b))


def _unordered(a: Value, b: Value) -> Value:
    return canonical_is_nan(a) | canonical_is_nan(b)


def _both_zero(a: Value, b: Value) -> Value:
    return ~(a[:31].any() | b[:31].any())
