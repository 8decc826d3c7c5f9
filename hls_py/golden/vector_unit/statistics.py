"""Golden of rtl/vector_unit/statistics.py."""

import numpy as np

from hls_py.golden import float32
from hls_py.kernels.norm import norm_statistics
from rtl.contract.number_formats import PARTIAL_SUMS, round_up


def norm_statistics_fold(x: np.ndarray, gain: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(Σx² [R], absmax|x·g| [R]) of rows x [R, K] (K counts padding); without gains absmax|x|.

    64 partial sums by element index mod 64, rising, then folded by halves: p[j] += p[j + 32], 16, 8, 4, 2, 1.
    """
    rows, length = x.shape
    has_norm = gain is not None
    gains = np.asarray(gain, np.float32) if gain is not None else np.zeros(length, np.float32)
    square, magnitude = norm_statistics(x.astype(np.float32), np.broadcast_to(gains, x.shape), np.array(int(has_norm)))
    # Squares are canonical and never negative: no sum is -0 or subnormal, +0 for what isn't there changes nothing, and
    # only a NaN's pattern is left to put right at the end.
    padded = np.zeros((rows, round_up(length, PARTIAL_SUMS)), np.float32)
    padded[:, :length] = square
    with np.errstate(all="ignore"):
        partial = padded[:, :PARTIAL_SUMS]
        for start in range(PARTIAL_SUMS, padded.shape[1], PARTIAL_SUMS):
            partial += padded[:, start:start + PARTIAL_SUMS]
        half = PARTIAL_SUMS // 2
        while half:
            partial = partial[:, :half] + partial[:, half:]
            half //= 2
    # Magnitudes are non-negative, so their bit patterns order as they do, NaN (0x7FC00000) above all.
    absmax = float32.bits_to_float(float32.float_bits(magnitude).max(axis=1))
    return float32.canonical(partial[:, 0]), absmax
