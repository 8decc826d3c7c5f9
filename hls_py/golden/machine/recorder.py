"""What the blocks of every layer put out, for all rows of all passes: to find where two models part."""

from __future__ import annotations

import numpy as np

BLOCKS = ("query", "key", "value", "attention", "attention_residual", "gated", "residual")
"""In the order of the computation. query, key and value: behind RoPE, [rows, heads·head_dim], rotary dims in the order
of the checkpoint. attention: what the attention's sub-norm or the output matrix reads. gated: what the FFN's sub-norm
or the down matrix reads. attention_residual, residual: the residual stream behind either half of the layer."""

EMBEDDING = "embedding"
"""The residual stream before layer 0."""


class Recorder:
    """Fed by the machine, in program order."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, str], list[np.ndarray]] = {}

    def add(self, layer: int, block: str, rows: np.ndarray) -> None:
        self._parts.setdefault((layer, block), []).append(rows.copy())

    def arrays(self) -> dict[str, np.ndarray]:
        """float32 [rows so far, width] of '<layer>.<block>'."""
        return {f"{layer}.{block}": np.concatenate(parts) for (layer, block), parts in self._parts.items()}


def natural_order(heads: np.ndarray, head_dim: int) -> np.ndarray:
    """[rows, heads, D ≥ head_dim] with rotary pairs side by side → [rows, heads·head_dim] in rotate_half's order."""
    pairs = heads[..., :head_dim].reshape(*heads.shape[:2], head_dim // 2, 2)
    return np.ascontiguousarray(pairs.swapaxes(2, 3)).reshape(len(heads), -1)
