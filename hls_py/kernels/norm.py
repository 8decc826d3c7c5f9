"""RMSNorm fused with the int8 quantisation that follows it.

    r = rsqrt(mean x² + ε);  D = max(absmax(x·g), 10⁻⁵·(mean x² + ε)·r);  q = clamp(rint((x·g)·(127/D)), ±127)

The normalised row is x·g·r; it is quantised by its own absmax D·r, so r cancels in q but for the reference's clamp of
that absmax to 10⁻⁵ (10⁻⁵·t·r = 10⁻⁵/r). Without a norm (has_norm = 0) r is 1 and g is 1: plain int8 quantisation.
"""

from typing import NamedTuple

from hls_py.dataflow import Bit, Float32, Int8, Scalar, kernel, maximum, rint_clamp, select
from hls_py.kernels.reciprocal import reciprocal
from hls_py.kernels.rsqrt import rsqrt
from rtl.contract.number_formats import ACTIVATION_FLOOR, ACTIVATION_MAX


class NormStatistics(NamedTuple):
    square: Float32
    magnitude: Float32


class NormScales(NamedTuple):
    inv: Float32
    scale: Float32


@kernel
def norm_statistics(x: Float32, gain: Float32, has_norm: Scalar[Bit]) -> NormStatistics:
    """Terms of Σx² and of absmax(x·g)."""
    return NormStatistics(x * x, abs(x * select(has_norm, gain, 1.0)))


@kernel
def norm_finalise(sum_squares: Float32, absmax: Float32, inv_n: Scalar[Float32], eps: Scalar[Float32],
                  has_norm: Scalar[Bit]) -> NormScales:
    """A row's factor 127/D and its dequantisation scale D·r/127; inv_n = 1/n."""
    t = select(has_norm, sum_squares * inv_n + eps, 1.0)
    r = rsqrt(t)
    largest = maximum(absmax, (ACTIVATION_FLOOR * t) * r)
    return NormScales(reciprocal(largest) * ACTIVATION_MAX, (largest * r) * (1 / ACTIVATION_MAX))


@kernel
def norm_quantise(x: Float32, gain: Float32, has_norm: Scalar[Bit], inv: Scalar[Float32]) -> Int8:
    """clamp(rint((x·g)·inv), ±127)."""
    return rint_clamp((x * select(has_norm, gain, 1.0)) * inv, -ACTIVATION_MAX, ACTIVATION_MAX)
