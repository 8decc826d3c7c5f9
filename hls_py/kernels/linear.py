"""What follows a ternary matrix product: its integer sums become floats."""

from hls_py.dataflow import Float32, Int32, Scalar, kernel, to_float


@kernel
def row_scale(row_scale: Scalar[Float32], weight_scale: Scalar[Float32]) -> Float32:
    """Scale of a row's sums: the row's activation scale times the matrix's weight scale."""
    return row_scale * weight_scale


@kernel
def dequantise(acc: Int32, scale: Scalar[Float32]) -> Float32:
    """acc·scale."""
    return to_float(acc) * scale


@kernel
def dequantise_residual(acc: Int32, scale: Scalar[Float32], residual: Float32) -> Float32:
    """residual + acc·scale: o and down projections, whose result joins the residual stream."""
    return residual + to_float(acc) * scale
