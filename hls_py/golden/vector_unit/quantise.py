"""Golden of rtl/vector_unit/quantise.py."""

import numpy as np

from hls_py.golden.vector_unit.statistics import norm_statistics_fold
from hls_py.kernels.norm import norm_finalise, norm_quantise


def quantise(x: np.ndarray, gain: np.ndarray | None, has_norm: bool, inverse_count: float | np.float32,
             eps: float) -> tuple[np.ndarray, np.ndarray]:
    """(codes int8 [R, K], scales float32 [R]) of rows x [R, K]; K counts padding, 1/``inverse_count`` doesn't.

    codes·scale is the (normalised) row. ``gain`` [K] is used if ``has_norm``.
    """
    if has_norm and gain is None:
        raise ValueError("a norm needs gains")
    x = x.astype(np.float32)
    gains = np.asarray(gain, np.float32) if gain is not None and has_norm else np.zeros(x.shape[1], np.float32)
    sum_squares, absmax = norm_statistics_fold(x, gains if has_norm else None)
    flag = np.array(int(has_norm))
    inverse, scale = norm_finalise(sum_squares, absmax, np.float32(inverse_count), np.float32(eps), flag)
    codes = norm_quantise(x, np.broadcast_to(gains, x.shape), flag, inverse[:, None])
    return codes, scale


def to_slices(codes: np.ndarray, slice_elements: int, slices: int) -> np.ndarray:
    """[slices, R, slice_elements]: K slices of rows of codes [R, K], zeros beyond K, in the order of the hardware."""
    rows, length = codes.shape
    padded = np.zeros((rows, max(slices * slice_elements, length)), np.int8)
    padded[:, :length] = codes
    return padded[:, :slices * slice_elements].reshape(rows, slices, slice_elements).transpose(1, 0, 2)
