"""Golden of rtl/vector_unit/gather.py: rows of the tables that a pass's rows start from."""

import numpy as np

from hls_py.golden import float32


def gather_embedding(table: bytes | np.ndarray, row_bytes: int, tokens: np.ndarray, length: int) -> np.ndarray:
    """float32 [R, length]: the tokens' rows of a bfloat16 table whose rows lie ``row_bytes`` apart."""
    raw = np.frombuffer(table, np.uint8)
    rows = np.stack([raw[int(t) * row_bytes:int(t) * row_bytes + 2 * length] for t in tokens])
    return float32.bits_to_float(np.ascontiguousarray(rows).view("<u2").astype(np.int64) << 16)


def gather_rotary(table: bytes | np.ndarray, row_bytes: int, positions: np.ndarray,
                  pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin), each float32 [R, pairs]: the positions' rows of a table of (cos, sin) float32 pairs."""
    raw = np.frombuffer(table, np.uint8)
    rows = np.stack([raw[int(p) * row_bytes:int(p) * row_bytes + 8 * pairs] for p in positions])
    values = float32.canonical(np.ascontiguousarray(rows).view("<f4"))
    return values[:, 0::2], values[:, 1::2]
