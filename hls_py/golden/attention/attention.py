"""Golden of rtl/attention/attention.py: tile-wise softmax attention of one group of rows."""

import numpy as np

from hls_py.golden.attention.softmax import RunningOutput, tile_softmax
from hls_py.golden.ternary_matmul.engine import EXACT_FLOAT32
from hls_py.kernels.attention import query_scale
from rtl.contract.number_formats import ACTIVATION_MAX, TILE_POSITIONS


def attend(queries: np.ndarray, query_scales: np.ndarray, keys: np.ndarray, key_scales: np.ndarray,
           values: np.ndarray, value_scales: np.ndarray, past: int, visible: np.ndarray,
           factor: float | np.float32, tiles: int | None = None) -> np.ndarray:
    """Attention outputs of a group, float32 [rows, q_heads, dims of ``values``].

    Row i of the group stands at position past + i. Tiles are absolute-aligned blocks of TILE_POSITIONS positions,
    newest first; everything within a tile is per (row, query head) and over visible positions only; what is invisible
    is deselected, so its codes and scales may be anything. A row that sees nothing gives zeros.

    Parameters
    ----------
    queries       : int8 [rows, q_heads, D], rotary-pair order; D may count zero padding.
    query_scales  : float32 [rows, q_heads].
    keys          : int8 [positions ≥ past + rows, kv_heads, D] by absolute position, new tokens included.
    key_scales    : float32 [positions, kv_heads].
    values        : int8 [positions, kv_heads, head_dim].
    value_scales  : float32 [positions, kv_heads].
    past          : positions before the pass, all visible to every row.
    visible       : bool [rows, rows]: row i sees the new token of row j.
    factor        : log2(e)/√head_dim, float32.
    tiles         : attend to the newest ``tiles`` tiles only (all of them unless given).
    """
    rows, q_heads = queries.shape[:2]
    kv_heads, out_dims = values.shape[1:]
    per_kv, lanes = q_heads // kv_heads, rows * q_heads // kv_heads

    def by_kv_head(x: np.ndarray) -> np.ndarray:
        """[kv head, row-vector = (row, query head of the KV head), …]."""
        return np.moveaxis(x.reshape(rows, kv_heads, per_kv, *x.shape[2:]), 1, 0).reshape(kv_heads, lanes, *x.shape[2:])

    # Floats hold the integer sums exactly, and multiply fast: 127²·D needs float32, 14-bit weights float64.
    exact = np.float32 if ACTIVATION_MAX**2 * queries.shape[-1] < EXACT_FLOAT32 else np.float64
    q = by_kv_head(queries).astype(exact)
    by_head_keys = keys.transpose(1, 2, 0)
    by_head_values = values.transpose(1, 0, 2)
    q_scaled = by_kv_head(query_scale(np.asarray(query_scales, np.float32), np.float32(factor))).reshape(-1)
    sees = np.repeat(np.asarray(visible, bool), per_kv, axis=0)
    running = RunningOutput(kv_heads * lanes, out_dims)
    newest = (past + rows - 1) // TILE_POSITIONS
    oldest = 0 if tiles is None else max(0, newest + 1 - tiles)
    for tile in range(newest, oldest - 1, -1):
        start, end = tile * TILE_POSITIONS, min((tile + 1) * TILE_POSITIONS, past + rows)
        seen = np.ones((lanes, end - start), bool)
        if end > past:
            first_new = max(start, past)
            seen[:, first_new - start:] = sees[:, first_new - past:end - past]
        dots = np.matmul(q, by_head_keys[:, :, start:end].astype(exact)).astype(np.int64)
        key_scale, value_scale = (np.repeat(scales[start:end].T, lanes, axis=0)
                                  for scales in (key_scales, value_scales))
        softmax = tile_softmax(dots.reshape(-1, end - start), np.tile(seen, (kv_heads, 1)), q_scaled, key_scale,
                               value_scale)
        weights = softmax.weights.reshape(kv_heads, lanes, -1).astype(np.float64)
        sums = np.matmul(weights, by_head_values[:, start:end].astype(np.float64)).astype(np.int64)
        running.merge(softmax, sums.reshape(-1, out_dims))
    value = running.value().reshape(kv_heads, rows, per_kv, out_dims)
    return np.moveaxis(value, 0, 1).reshape(rows, q_heads, out_dims)
