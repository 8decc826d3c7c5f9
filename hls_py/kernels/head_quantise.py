"""Int8 quantisation of a query, key or value head, with a bfloat16 scale."""

from typing import NamedTuple

from hls_py.dataflow import Float32, Int8, Scalar, bits_to_float, float_bits, kernel, rint_clamp, select
from hls_py.kernels.reciprocal import reciprocal
from rtl.contract.number_formats import ACTIVATION_MAX


class HeadScale(NamedTuple):
    scale: Float32
    inverse: Float32


@kernel
def head_scale(absmax: Float32) -> HeadScale:
    """absmax/127 rounded up to bfloat16, and its reciprocal (0 for a head of zeros)."""
    bits = float_bits(absmax * (1 / ACTIVATION_MAX))  # absmax ≥ 0: the next pattern up is the next number up
    scale = bits_to_float(((bits + 0xFFFF)[16:32]) << 16)
    return HeadScale(scale, select(scale == 0.0, 0.0, reciprocal(scale)))


@kernel
def quantise_int8(x: Float32, inverse: Scalar[Float32]) -> Int8:
    """clamp(rint(x·inverse), ±127)."""
    return rint_clamp(x * inverse, -ACTIVATION_MAX, ACTIVATION_MAX)
