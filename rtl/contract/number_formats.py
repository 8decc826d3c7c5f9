"""Number formats and the constants of arithmetic that no design parameter may change.

float32   : IEEE-754 binary32, round to nearest even; subnormal inputs count as zero, a result whose exact value is
            below 2**-126 is zero, NaN is 0x7FC00000.
activation: int8 in [-127, 127], one float32 scale a row.
KV, query : int8 in [-127, 127], one bfloat16 scale a (token, head), absmax/127 rounded up.
"""

CANONICAL_NAN = 0x7FC00000

ACTIVATION_MAX = 127
ACTIVATION_FLOOR = 1e-5
"""The reference's clamp of an activation row's absmax."""

PARTIAL_SUMS = 64
"""A float reduction keeps 64 partial sums by index mod 64, rising index, then folds by halves."""

VECTOR_ALIGN = 8
"""Every vector (and every head within one) is padded with zeros to a multiple of 8 elements."""

SEGMENT_BYTES = 16
"""The int8 array's unit along its contraction: 16 bytes of one vector."""

EXP_FRACTION_BITS = 20
"""Softmax's exp is unsigned fixed point: 1.0 is 2**20."""

WEIGHT_BITS = 14
"""Softmax weights: 14 bits, the high and the low 7 as two row-vectors of the array."""

WEIGHT_MAX = (1 << WEIGHT_BITS) - 1
WEIGHT_HALF_BITS = WEIGHT_BITS // 2

TILE_POSITIONS = 128
"""A softmax tile is an absolute-aligned block of 128 positions; also the KV cache's block."""


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of ``multiple`` that is ≥ ``value``."""
    return -(-value // multiple) * multiple


def signed_range(bits: int) -> range:
    """Integers of ``bits`` bits in two's complement."""
    return range(-1 << bits - 1, 1 << bits - 1)


def bits_for(largest: int) -> int:
    """Bits that hold 0 … ``largest`` (at least one)."""
    return max(1, largest.bit_length())
