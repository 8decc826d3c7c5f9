"""2ˣ for x ≤ 0 as unsigned fixed point: the softmax's exponential."""

from decimal import Decimal
from itertools import pairwise

from hls_py.dataflow import Float32, UInt, is_nan, kernel, select, shift_right, table, to_fixed
from hls_py.kernels.polynomial import to_integer
from rtl.contract.number_formats import EXP_FRACTION_BITS

INDEX_BITS = 8
STEP_BITS = 14
ARGUMENT_FRACTION_BITS = INDEX_BITS + STEP_BITS
INTEGER_BITS = 6
INNER_BITS = 26
"""Fraction bits of 2⁻ᶠ before it is shifted and rounded."""

_POINTS = [to_integer(Decimal(2) ** (INNER_BITS - Decimal(n) / (1 << INDEX_BITS))) for n in range(257)]
START = tuple(_POINTS[:-1])
FALL = tuple(a - b for a, b in pairwise(_POINTS))


@kernel
def exp2_fixed(x: Float32) -> UInt[EXP_FRACTION_BITS + 1]:  # type: ignore[valid-type,type-arg]
    """2ˣ · 2²⁰, nearly rounded.

    Absolute error at most 0.74·2⁻¹⁹ (every argument of the table); never decreasing; exp2_fixed(0) = 2²⁰ exactly.
    x > 0 counts as 0, x < −40 gives 0, NaN gives 0.
    −x = n + f; 2⁻ᶠ is linear between 257 points, then shifted right by n.
    """
    u = to_fixed(-x, ARGUMENT_FRACTION_BITS, 0, (1 << ARGUMENT_FRACTION_BITS + INTEGER_BITS) - 1)
    n = u[ARGUMENT_FRACTION_BITS:ARGUMENT_FRACTION_BITS + INTEGER_BITS]
    index, step = u[STEP_BITS:ARGUMENT_FRACTION_BITS], u[0:STEP_BITS]
    start, fall = table(index, START, FALL)
    y = start - ((fall * step) >> STEP_BITS)
    half_up = shift_right(y, n + (INNER_BITS - EXP_FRACTION_BITS - 1)) + 1
    return select(is_nan(x), 0, half_up >> 1)
