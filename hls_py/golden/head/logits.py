"""Golden of rtl/head/head.py: logits of int8 rows against int8 vocabulary rows, and the best of them."""

import numpy as np

from hls_py.golden.head.argmax import sort_key
from hls_py.golden.ternary_matmul.engine import EXACT_FLOAT32, matmul_weights
from hls_py.kernels.logit import logit
from rtl.contract.number_formats import ACTIVATION_MAX

EXACT_LENGTH = EXACT_FLOAT32 // ACTIVATION_MAX**2
"""Products of two int8 whose sum float32 holds exactly."""


def int8_products(codes: np.ndarray, operands: np.ndarray) -> np.ndarray:
    """Sums [R, N] int32 of int8 codes [N, K'] and operands [R, K], K ≤ K'."""
    sums = np.zeros((len(operands), len(codes)), np.int32)
    for first in range(0, operands.shape[1], EXACT_LENGTH):
        part = slice(first, min(first + EXACT_LENGTH, operands.shape[1]))
        sums += matmul_weights(codes[:, part], operands[:, part])
    return sums


def logits_of(operands: np.ndarray, row_scale: np.ndarray, codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float32 [R, N]: (acc·row_scale)·vocabulary_scale.

    operands int8 [R, K], row_scale float32 [R], codes int8 [N, K], scales float32 [N].
    """
    return logit(int8_products(codes, operands), row_scale[:, None], scales[None])


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Indices of the ``k`` largest of float32 [N], best first; ties go to the lowest index."""
    keys = sort_key(logits).astype(np.int64)
    return np.argsort(-keys, kind="stable")[:k]
