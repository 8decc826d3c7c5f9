"""Golden of rtl/head/head.py: logits of int8 rows against int8 vocabulary rows, and the best of them."""

import numpy as np

from hls_py.golden.head.argmax import sort_key
from hls_py.golden.ternary_matmul.engine import matmul_weights
from hls_py.kernels.logit import logit


def logits_of(operands: np.ndarray, row_scale: np.ndarray, codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float32 [R, N]: (acc·row_scale)·vocabulary_scale.

    operands int8 [R, K], row_scale float32 [R], codes int8 [N, K], scales float32 [N].
    """
    return logit(matmul_weights(codes, operands), row_scale[:, None], scales[None])


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Indices of the ``k`` largest of float32 [N], best first; ties go to the lowest index."""
    keys = sort_key(logits).astype(np.int64)
    return np.argsort(-keys, kind="stable")[:k]
