"""Golden of rtl/float32/: IEEE-754 float32 as the hardware computes it.

Round to nearest even; subnormal inputs count as zero of their sign; a result whose exact value is below 2⁻¹²⁶ in
magnitude is zero of its sign; every NaN is 0x7FC00000. NumPy does none of the last three by itself.

A *canonical* array holds no subnormal and no NaN but 0x7FC00000. Operands here must be canonical, as every result is;
data from outside goes through ``canonical`` once. That keeps each operation at a few passes over its data.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float32Array = NDArray[np.float32]

SMALLEST = np.float32(2.0**-126)
"""The smallest normal number."""

NAN = np.array(0x7FC00000, np.uint32).view(np.float32)[()]
"""The only NaN."""

_ZERO = np.float32(0)


def canonical(x: ArrayLike) -> Float32Array:
    """``x`` as float32 with subnormals made zero and every NaN made 0x7FC00000."""
    x = np.asarray(x, np.float32)
    normal = np.abs(x) >= SMALLEST
    return x if _all(normal) or _all(normal | (x == 0)) else _repair(x, normal)


def _all(mask: NDArray[np.bool_]) -> bool:
    """``mask.all()`` at a fraction of its overhead, which counts: most arrays here are a few hundred elements."""
    return bool(np.count_nonzero(mask) == mask.size)


def _repair(x: Float32Array, normal: NDArray[np.bool_]) -> Float32Array:
    """Zeros of their sign and the one NaN wherever ``normal`` is false."""
    return np.where(normal, x, np.where(np.isnan(x), NAN, np.copysign(_ZERO, x)))


def add(a: Float32Array, b: Float32Array) -> Float32Array:
    """a + b. A sum below 2⁻¹²⁶ is exact before it is made zero."""
    return canonical(np.add(a, b))


def subtract(a: Float32Array, b: Float32Array) -> Float32Array:
    """a − b."""
    return canonical(np.subtract(a, b))


def multiply(a: Float32Array, b: Float32Array | np.float32) -> Float32Array:
    """a · b."""
    product = np.asarray(np.multiply(a, b))
    normal = np.abs(product) > SMALLEST
    if _all(normal) or _all(normal | (product == 0)):
        return product
    # A product that IEEE rounding lifts to 2⁻¹²⁶ is below it all the same; float64 holds every product exactly.
    exact = np.multiply(a, b, dtype=np.float64)
    return _repair(product, np.abs(exact) >= float(SMALLEST))


def negate(a: Float32Array) -> Float32Array:
    """−a; NaN stays what it is."""
    result = np.negative(a)
    return np.where(np.isnan(result), NAN, result) if np.isnan(result).any() else np.asarray(result)


def absolute(a: Float32Array) -> Float32Array:
    """|a|."""
    return np.asarray(np.abs(a))


def maximum(a: Float32Array, b: Float32Array) -> Float32Array:
    """The larger, with −0 < +0; NaN if either is NaN."""
    return _order_zeros(np.asarray(np.maximum(a, b)), a, b, np.bitwise_and)


def minimum(a: Float32Array, b: Float32Array) -> Float32Array:
    """The smaller, with −0 < +0; NaN if either is NaN."""
    return _order_zeros(np.asarray(np.minimum(a, b)), a, b, np.bitwise_or)


def _order_zeros(result: Float32Array, a: Float32Array, b: Float32Array, combine: Any) -> Float32Array:
    if not _all(np.abs(result) > 0):
        both_zero = (np.asarray(a) == 0) & (np.asarray(b) == 0)
        ordered = bits_to_float(combine(float_bits(a), float_bits(b)))
        result = np.where(both_zero, ordered, result)
        result = np.where(np.isnan(result), NAN, result)
    return result


def scale_exponent(a: Float32Array, exponent: int) -> Float32Array:
    """a · 2**exponent for −126 ≤ exponent ≤ 127: what ``multiply`` by that constant gives."""
    return multiply(a, np.float32(2.0**exponent))


def from_int(i: ArrayLike) -> Float32Array:
    """Integer of up to 63 bits to float32, one rounding."""
    return np.asarray(i, np.int64).astype(np.float32)


def to_fixed(x: Float32Array, fraction_bits: int, low: int, high: int) -> NDArray[np.int64]:
    """clamp(rint(x · 2**fraction_bits), low … high), ties to even; NaN gives 0 (which must lie in the range)."""
    scaled = np.rint(np.asarray(x, np.float64) * 2.0**fraction_bits)
    clamped = np.minimum(np.maximum(scaled, low), high)  # np.clip takes twice as long
    number = clamped == clamped
    return np.asarray(clamped if _all(number) else np.where(number, clamped, 0.0)).astype(np.int64)


def rint_clamp(x: Float32Array, low: int, high: int) -> NDArray[np.int64]:
    """clamp(rint(x), low … high), ties to even; NaN gives 0."""
    return to_fixed(x, 0, low, high)


def float_bits(x: Float32Array) -> NDArray[np.int64]:
    """The bit pattern as an unsigned number."""
    return np.ascontiguousarray(x, np.float32).reshape(np.shape(x)).view(np.uint32).astype(np.int64)


def bits_to_float(bits: ArrayLike) -> Float32Array:
    """The float behind a bit pattern, made canonical."""
    bits = np.asarray(bits)
    return canonical((bits & 0xFFFFFFFF).astype(np.uint32).view(np.float32))
