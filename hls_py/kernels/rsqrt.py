"""1/√x in float32."""

from decimal import Decimal

from hls_py.dataflow import Float32, bits_to_float, float_bits, is_nan, kernel, select
from hls_py.kernels.polynomial import quadratic, uniform

INDEX_BITS = 7
STEP_BITS = 23 - INDEX_BITS
FRACTION_BITS = 27
COUNT = 1 << INDEX_BITS
RSQRT = quadratic(
    lambda m: Decimal(1) / m.sqrt(),
    uniform(1, -INDEX_BITS, COUNT) + uniform(2, 1 - INDEX_BITS, COUNT), STEP_BITS, FRACTION_BITS)


@kernel
def rsqrt(x: Float32) -> Float32:
    """1/√x: error at most 0.68 ulp over every mantissa and exponent parity; exact at powers of four.

    ±0 gives +∞, +∞ gives 0, negative numbers and NaN give NaN.
    1/√m for m in [1, 4), twice the mantissa where the exponent is odd, is a quadratic on 2 × 128 segments.
    """
    bits = float_bits(x)
    sign, exponent, mantissa = bits[31], bits[23:31], bits[0:23]
    is_odd = exponent[0] ^ 1  # the bias is odd
    y = RSQRT((is_odd << INDEX_BITS) | mantissa[STEP_BITS:23], mantissa[0:STEP_BITS])
    rounded = ((y + 4) >> 3)[0:25]  # 2²⁴ is 1.0
    is_one = rounded[24]
    scale = (is_one + 190) - ((exponent + 1) >> 1)
    magnitude = (scale[0:8] << 23) | rounded[0:23]
    finite = select(exponent == 0, 0x7F800000, select(exponent == 255, 0, magnitude))
    no_root = is_nan(x) | (sign & (exponent != 0))
    return bits_to_float(select(no_root, 0x7FC00000, finite))
