"""Golden of rtl/ternary_matmul/engine.py: exact integer sums."""

import numpy as np

from hls_py.golden.ternary_matmul.encoding import decode_tile
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import ACTIVATION_MAX

EXACT_FLOAT32 = 1 << 24


def matmul(codes: bytes, params: DesignParams, slices: int, steps: int, activations: np.ndarray) -> np.ndarray:
    """Sums [R, steps·Q] int32 of one tile: ``Σ_k weight[n, k]·activation[r, k]``.

    Parameters
    ----------
    codes       : the tile's beats, ``slices·steps·beat_bytes`` bytes.
    activations : [R, K] int8 in [−127, 127]; positions beyond K are zero.
    """
    return matmul_weights(decode_tile(codes, params, slices, steps), activations)


def matmul_weights(weights: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """Sums [R, N] int32 of weights [N, K'] and activations [R, K], K ≤ K'."""
    used = activations.shape[1]
    if used > weights.shape[1]:
        raise ValueError(f"{used} activations a row for weights of {weights.shape[1]} positions")
    # Integers below 2**24 are exact in float32, and its product is much faster than NumPy's of integers.
    exact = np.float32 if 2 * ACTIVATION_MAX * used < EXACT_FLOAT32 else np.float64
    return (activations.astype(exact) @ weights[:, :used].T.astype(exact, copy=False)).astype(np.int32)
