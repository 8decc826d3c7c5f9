"""Piecewise polynomials in integers: the core of reciprocal, rsqrt, sigmoid and exp2.

On a segment of width h, with t in [−½, ½) the position from its middle and d = t·2**step_bits a signed integer (so
that an 18-bit multiplier input takes 18 bits of it),

    y · 2**fraction_bits = c0 + (((c1 + ((c2·d) >> step_bits)) · d) >> step_bits)

c0, c1, c2 interpolate the function at the segment's Chebyshev points (nearly the minimax polynomial), scaled so that
each is in units of the result's last place. They are computed with ``decimal``: the same integers on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

from hls_py.dataflow import as_signed, table

Function = Callable[[Decimal], Decimal]
DIGITS = 40

# cos(π/6)/2: the outer Chebyshev points of degree 2 on [−½, ½] are ± this, the inner one is 0.
_POINT = Decimal("0.433012701892219323381861585376468091")


def to_integer(x: Decimal) -> int:
    """Nearest integer, ties to even."""
    return int(x.to_integral_value(ROUND_HALF_EVEN))


@dataclass(frozen=True)
class Quadratic:
    """Columns of coefficients, one entry a segment."""

    c0: tuple[int, ...]
    c1: tuple[int, ...]
    c2: tuple[int, ...]
    step_bits: int

    def __call__(self, index: Any, step: Any) -> Any:
        """Value of segment ``index`` at ``step`` (unsigned, from its start), in units of 2**−fraction_bits."""
        d = as_signed(step ^ (1 << self.step_bits - 1), self.step_bits)  # less half the segment
        c0, c1, c2 = table(index, self.c0, self.c1, self.c2)
        slope = c1 + ((c2 * d) >> self.step_bits)
        return c0 + ((slope * d) >> self.step_bits)


def quadratic(function: Function, segments: list[tuple[Decimal, Decimal]], step_bits: int,
              fraction_bits: int) -> Quadratic:
    """Coefficients of ``function`` on ``segments`` of (start, width)."""
    columns: list[tuple[int, int, int]] = []
    with localcontext() as context:
        context.prec = DIGITS
        unit = Decimal(2) ** fraction_bits
        for start, width in segments:
            left, middle, right = (function(start + width * (t + Decimal("0.5"))) * unit
                                   for t in (-_POINT, Decimal(0), _POINT))
            columns.append((to_integer(middle), to_integer((right - left) / (2 * _POINT)),
                            to_integer((left - 2 * middle + right) / (2 * _POINT * _POINT))))
    c0, c1, c2 = (tuple(column) for column in zip(*columns, strict=True))
    return Quadratic(c0, c1, c2, step_bits)


def uniform(start: int, width_log2: int, count: int) -> list[tuple[Decimal, Decimal]]:
    """``count`` segments of width 2**width_log2 from ``start`` on."""
    width = Decimal(2) ** width_log2
    return [(start + width * n, width) for n in range(count)]
