"""Golden of rtl/attention/attention.py: tile-wise softmax attention of one group of rows."""

import numpy as np

from hls_py.golden import float32
from hls_py.kernels.attention import (
    attention_output,
    inverse_sum,
    merge_factors,
    merge_output,
    query_scale,
    score,
    softmax_weight,
    weight_quantise,
    weight_scale,
)
from rtl.contract.number_formats import TILE_POSITIONS


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
    q_scaled = query_scale(np.asarray(query_scales, np.float32), np.float32(factor))

    # [kv head, row-vector = (row, query head of the KV head), …]; float64 holds the integer sums exactly
    def by_kv_head(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x.reshape(rows, kv_heads, per_kv, *x.shape[2:]), 1, 0).reshape(kv_heads, lanes, *x.shape[2:])

    q, q_scaled = by_kv_head(queries).astype(np.float64), by_kv_head(q_scaled)
    sees = np.repeat(np.asarray(visible, bool), per_kv, axis=0)
    m, denominator = np.zeros((2, kv_heads, lanes), np.float32)
    output = np.zeros((kv_heads, lanes, out_dims), np.float32)
    started = np.zeros(lanes, bool)
    newest = (past + rows - 1) // TILE_POSITIONS
    oldest = 0 if tiles is None else max(0, newest + 1 - tiles)
    for tile in range(newest, oldest - 1, -1):
        start, end = tile * TILE_POSITIONS, min((tile + 1) * TILE_POSITIONS, past + rows)
        seen = np.ones((lanes, end - start), bool)
        if end > past:
            first_new = max(start, past)
            seen[:, first_new - start:] = sees[:, first_new - past:end - past]
        chosen = seen.any(axis=1)
        if not chosen.any():
            continue

        dots = np.einsum("hld,thd->hlt", q[:, chosen], keys[start:end], optimize=True).astype(np.int64)
        seen = seen[chosen][None]
        scores = score(dots, q_scaled[:, chosen, None], key_scales[start:end].T[:, None])
        m_tile = largest(scores, seen)
        exponentials, weights = softmax_weight(scores, m_tile[..., None], value_scales[start:end].T[:, None])
        l_tile = np.where(seen, exponentials, 0).sum(axis=-1)
        c, inverse = weight_scale(largest(weights, seen))
        quantised = np.where(seen, weight_quantise(weights, inverse[..., None]), 0)
        acc = np.einsum("hlt,thd->hld", quantised.astype(np.float64), values[start:end], optimize=True).astype(np.int64)

        first = np.broadcast_to(~started[chosen], l_tile.shape)
        merged = merge_factors(m[:, chosen], m_tile, denominator[:, chosen], l_tile, c, first)
        m[:, chosen], denominator[:, chosen] = merged.m_new, merged.l_new
        output[:, chosen] = merge_output(output[:, chosen], acc, merged.alpha[..., None], merged.cb[..., None],
                                         first[..., None])
        started |= chosen

    result = np.where(started[:, None], attention_output(output, inverse_sum(denominator)[..., None]), np.float32(0))
    return np.moveaxis(result.reshape(kv_heads, rows, per_kv, out_dims), 0, 1).reshape(rows, q_heads, out_dims)


def largest(x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Maximum of float32 ``x`` over the chosen elements of the last axis (at least one): −0 < +0, NaN above all."""
    bits = float32.float_bits(float32.canonical(x))
    keys = np.where(bits >> 31 == 1, -1 - (bits & 0x7FFFFFFF), bits)
    best = np.where(chosen, keys, np.iinfo(np.int64).min).max(axis=-1)
    return float32.bits_to_float(np.where(best < 0, (-1 - best) | 0x80000000, best))
