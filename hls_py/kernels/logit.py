"""The head's scores."""

from hls_py.dataflow import Float32, Int32, Scalar, kernel, to_float


@kernel
def logit(acc: Int32, row_scale: Scalar[Float32], vocabulary_scale: Float32) -> Float32:
    """(acc·row_scale)·vocabulary_scale."""
    return (to_float(acc) * row_scale) * vocabulary_scale
