"""SiLU and squared ReLU in float32."""

from decimal import Decimal
from typing import Any

from hls_py.dataflow import Float32, kernel, maximum, scale_exponent, select, to_fixed, to_float
from hls_py.kernels.polynomial import Quadratic, quadratic, uniform

FRACTION_BITS = 30
ARGUMENT_BITS = 28
ARGUMENT_FRACTION_BITS = 23
STEP_BITS = 18
SATURATION = -32.0
"""Below it silu is −0."""

# σ(−u): segments of 1/32 below 8, 1/16 below 16, 1/8 below 32, so that every region's index is a slice of u.
SIGMOID: Quadratic = quadratic(
    lambda u: Decimal(1) / (Decimal(1) + u.exp()),
    uniform(0, -5, 256) + uniform(8, -4, 128) + uniform(16, -3, 128), STEP_BITS, FRACTION_BITS)


@kernel
def silu(x: Float32) -> Float32:
    """x·σ(x), σ(x) = 1/(1 + e⁻ˣ).

    Error at most 2.5 ulp for x ≥ −4 and 0.46·2⁻²⁴ absolute below (10⁷ points).
    −∞ gives −0, +∞ gives +∞, NaN gives NaN; x ≤ −32 gives −0, x ≥ 32 gives x.
    """
    return select(x < SATURATION, -0.0, x * sigmoid(x))


def sigmoid(x: Any) -> Any:
    """σ(x) of a traced x; σ(−|x|) is a quadratic in integers on 512 segments with 30 fraction bits; |x| is taken with
    23 fraction bits."""
    u = to_fixed(abs(x), ARGUMENT_FRACTION_BITS, 0, (1 << ARGUMENT_BITS) - 1)
    eighths, halves = u[ARGUMENT_BITS - 1], u[ARGUMENT_BITS - 2]
    index = select(eighths, u[20:27] | 384, select(halves, u[19:26] | 256, u[18:26]))
    step = select(eighths, u[2:20], select(halves, u[1:19], u[0:18]))
    tail = SIGMOID(index, step)
    one = 1 << FRACTION_BITS
    return scale_exponent(to_float(select(x < 0.0, tail, one - tail)), -FRACTION_BITS)


@kernel
def relu_squared(x: Float32) -> Float32:
    """max(x, 0)²: one rounding; NaN gives NaN."""
    positive = maximum(x, 0.0)
    return positive * positive
