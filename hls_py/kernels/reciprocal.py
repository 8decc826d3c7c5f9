"""1/x in float32."""

from decimal import Decimal

from hls_py.dataflow import Float32, bits_to_float, float_bits, is_nan, kernel, select
from hls_py.kernels.polynomial import quadratic, uniform

INDEX_BITS = 7
STEP_BITS = 23 - INDEX_BITS
FRACTION_BITS = 27
RECIPROCAL = quadratic(lambda m: Decimal(1) / m, uniform(1, -INDEX_BITS, 1 << INDEX_BITS), STEP_BITS, FRACTION_BITS)


@kernel
def reciprocal(x: Float32) -> Float32:
    """1/x: error at most 0.84 ulp over every mantissa; exact at powers of two.

    ±0 gives ±∞, ±∞ gives ±0, NaN gives NaN; a result below 2⁻¹²⁶ is zero of its sign.
    1/m for the mantissa m in [1, 2) is a quadratic on 128 segments, in (½, 1] with 27 fraction bits.
    """
    bits = float_bits(x)
    sign, exponent, mantissa = bits[31], bits[23:31], bits[0:23]
    y = RECIPROCAL(mantissa[STEP_BITS:23], mantissa[0:STEP_BITS])
    rounded = ((y + 4) >> 3)[0:25]  # 2²⁴ is 1.0, reached by m = 1 and perhaps its neighbours
    is_one = rounded[24]
    scale = (is_one + 253) - exponent  # biased exponent of the result
    magnitude = (scale[0:8] << 23) | rounded[0:23]
    finite = select(scale < 1, 0, magnitude)
    finite = select(exponent == 0, 0x7F800000, select(exponent == 255, 0, finite))
    return bits_to_float(select(is_nan(x), 0x7FC00000, (sign << 31) | finite))
