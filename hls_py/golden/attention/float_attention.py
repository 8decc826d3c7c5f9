"""Attention with decisions of the hardware taken back: to measure their cost, and to hold them against oracles."""

from __future__ import annotations

import numpy as np

from rtl.contract.number_formats import TILE_POSITIONS, WEIGHT_MAX


def float_attend(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, value_scales: np.ndarray | None,
                 past: int, visible: np.ndarray, factor: float | np.float32, float_weights: bool) -> np.ndarray:
    """float32 [rows, q_heads, head_dim]; positions and visibility as in :func:`attend`, arithmetic in float64.

    Parameters
    ----------
    queries       : [rows, q_heads, D].
    keys          : [positions, kv_heads, D].
    values        : [positions, kv_heads, head_dim].
    value_scales  : [positions, kv_heads] that weights are multiplied by before they are quantised; None: 1.
    factor        : log2(e)/√head_dim.
    float_weights : plain softmax; else 14-bit weights by the largest of each tile.
    """
    rows, q_heads = queries.shape[:2]
    kv_heads = keys.shape[1]
    lanes = q_heads // kv_heads
    end = past + rows
    q = queries.reshape(rows, kv_heads, lanes, -1).astype(np.float64)
    scores = np.einsum("rgld,tgd->rglt", q, keys[:end].astype(np.float64), optimize=True) * float(factor)
    sees = np.ones((rows, end), bool)
    sees[:, past:] = visible
    scores = np.where(sees[:, None, None], scores, -np.inf)
    with np.errstate(invalid="ignore"):
        weights = np.exp2(scores - scores.max(axis=-1, keepdims=True))
    weights = np.where(sees[:, None, None], weights, 0.0)  # of a row that sees nothing, too
    total = weights.sum(axis=-1, keepdims=True)
    if not float_weights:
        scales = (np.ones((end, kv_heads)) if value_scales is None else value_scales[:end].astype(np.float64)).T
        scales = np.where(scales == 0, 1, scales)[None, :, None]
        weights = _quantised_by_tile(weights * scales) / scales
    out = np.einsum("rglt,tgd->rgld", weights, values[:end].astype(np.float64), optimize=True)
    out /= np.where(total == 0, 1, total)
    return out.reshape(rows, q_heads, -1).astype(np.float32)


def _quantised_by_tile(weights: np.ndarray) -> np.ndarray:
    out = np.empty_like(weights)
    for start in range(0, weights.shape[-1], TILE_POSITIONS):
        part = weights[..., start:start + TILE_POSITIONS]
        step = part.max(axis=-1, keepdims=True) / WEIGHT_MAX
        out[..., start:start + TILE_POSITIONS] = np.rint(part / np.where(step == 0, 1, step)) * step
    return out
