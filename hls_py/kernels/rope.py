"""Rotary position embedding on freshly dequantised query and key pairs."""

from typing import NamedTuple

from hls_py.dataflow import Float32, Int32, Scalar, kernel, to_float


class Rotated(NamedTuple):
    first: Float32
    second: Float32


@kernel
def dequantise_rotate(acc0: Int32, acc1: Int32, scale: Scalar[Float32], cos: Float32, sin: Float32) -> Rotated:
    """(x0·cos − x1·sin, x1·cos + x0·sin) of one pair, x = acc·scale; a lane is a pair."""
    x0, x1 = to_float(acc0) * scale, to_float(acc1) * scale
    return Rotated(x0 * cos - x1 * sin, x1 * cos + x0 * sin)
