"""Sine and cosine with the same bits on every machine.

NumPy's and libm's depend on what the CPU offers, so that two machines would pack different images of one model. Here
nothing but IEEE float64 additions and products happens, one at a time: Cody and Waite's reduction to ±π/4, then the
Taylor series. Rounded to float32 once, the result is the nearest float32 but where float64 can't tell (1 in 10⁸).
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from math import factorial

import numpy as np

from hls_py.model_import.config import MAX_ANGLE

HALF_PI = Decimal("1.5707963267948966192313216916397514420985846996875529104874722961539082")
PART_BITS = 28
"""With quarter turns of up to 25 bits (of MAX_ANGLE they have 24) the products with the parts of π/2 are exact."""

PARTS = 4
TERMS = 9
"""The first one left out is below 2⁻⁵⁸ of the sum for |r| ≤ π/4."""


def _parts() -> tuple[float, ...]:
    """π/2 as a sum of numbers of 28 bits."""
    rest, parts = HALF_PI, []
    with localcontext() as context:
        context.prec = 80
        for n in range(1, PARTS + 1):
            unit = Decimal(2) ** (1 - PART_BITS * n)
            whole = (rest / unit).to_integral_value("ROUND_FLOOR")
            parts.append(float(whole * unit))
            rest -= whole * unit
    return tuple(parts)


HALF_PI_PARTS = _parts()
QUARTER_TURNS = float(1 / HALF_PI)
SINE = tuple((-1.0) ** n / factorial(2 * n + 1) for n in range(TERMS))
COSINE = tuple((-1.0) ** n / factorial(2 * n) for n in range(TERMS))


def cosine_and_sine(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 cos and sin of float32 angles in radians; raises ``ValueError`` for one beyond MAX_ANGLE."""
    x = np.asarray(angles, np.float32).astype(np.float64)
    if not (np.abs(x) <= MAX_ANGLE).all():
        raise ValueError(f"an angle is beyond {MAX_ANGLE} radians")
    turns = np.rint(x * QUARTER_TURNS)
    for part in HALF_PI_PARTS:
        x = x - turns * part
    square = x * x
    sine, cosine = x * _series(SINE, square), _series(COSINE, square)
    quadrant = turns.astype(np.int64) & 3
    odd = quadrant & 1 == 1
    cos = np.where(odd, sine, cosine) * np.where((quadrant == 1) | (quadrant == 2), -1.0, 1.0)
    sin = np.where(odd, cosine, sine) * np.where(quadrant >= 2, -1.0, 1.0)
    return cos.astype(np.float32), sin.astype(np.float32)


def _series(coefficients: tuple[float, ...], square: np.ndarray) -> np.ndarray:
    """Σ coefficient·squareⁿ by Horner's rule."""
    total = np.full_like(square, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * square + coefficient
    return total
