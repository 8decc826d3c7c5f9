"""Compiler of element-wise functions: written once, evaluated on NumPy arrays or lowered to a pipeline."""

from hls_py.dataflow.kernel import Kernel, kernel
from hls_py.dataflow.primitives import (
    absolute,
    as_signed,
    bits_to_float,
    equal,
    float_bits,
    is_nan,
    less,
    less_equal,
    maximum,
    minimum,
    rint_clamp,
    scale_exponent,
    select,
    shift_left,
    shift_right,
    table,
    to_fixed,
    to_float,
)
from hls_py.dataflow.types import BFloat16, Bit, Float32, Int, Int8, Int32, Scalar, UInt

__all__ = [
    "BFloat16", "Bit", "Float32", "Int", "Int8", "Int32", "Kernel", "Scalar", "UInt",
    "absolute", "as_signed", "bits_to_float", "equal", "float_bits", "is_nan", "kernel", "less", "less_equal",
    "maximum", "minimum", "rint_clamp", "scale_exponent", "select", "shift_left", "shift_right", "table", "to_fixed",
    "to_float",
]
