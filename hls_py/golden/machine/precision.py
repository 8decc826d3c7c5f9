"""What golden may compute in float where the hardware has int8: to measure what each such decision costs.

Hardware is ``Precision()``; anything else exists in golden alone, and its KV cache is not what memory holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PARTS = ("queries", "kv", "attention_weights", "head")
"""Names of the decisions."""
ATTENTION_OPERANDS = ("queries", "kv")
"""The KV cache in float takes the queries with it: they are int8 only because the other operand of their product is."""


@dataclass(frozen=True)
class Precision:
    """Each field set takes one decision back."""

    queries: bool = False
    """Queries float32, not int8 by head."""
    kv: bool = False
    """Keys and values float32, not int8 by head and position."""
    attention_weights: bool = False
    """Softmax in float64, without 14-bit weights by tile."""
    head: np.ndarray | None = None
    """float32 [vocabulary, hidden]: the head's own rows; its operand isn't quantised, either."""

    @property
    def attention(self) -> bool:
        """Whether attention is anything but the hardware's."""
        return self.queries or self.kv or self.attention_weights

    @staticmethod
    def of_model(parts: Iterable[str], model: Path, i2s_layout: str | None = None) -> Precision:
        """``parts`` of PARTS in float; the head's rows are read from ``model``."""
        from hls_py.model_import.model import Model

        wanted = set(parts)
        if unknown := wanted - set(PARTS):
            raise ValueError(f"{', '.join(sorted(unknown))}: known are {', '.join(PARTS)}")
        head = Model(model, i2s_layout).head() if "head" in wanted else None
        return Precision("queries" in wanted, "kv" in wanted, "attention_weights" in wanted, head)


class FloatTiles:
    """Float keys and values [128, D] of every KV tile by the beat it has in memory."""

    def __init__(self) -> None:
        self._tiles: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def tile(self, beat: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
        """To read and to write."""
        if beat not in self._tiles or self._tiles[beat][0].shape[1] != dims:
            self._tiles[beat] = np.zeros((128, dims), np.float32), np.zeros((128, dims), np.float32)
        return self._tiles[beat]


def float_norm(x: np.ndarray, gains: np.ndarray | None, inverse_count: float, epsilon: float) -> np.ndarray:
    """float32 x·g/√(mean x² + ε)."""
    wide = x.astype(np.float64)
    root = np.sqrt((wide * wide).sum(axis=1, keepdims=True) * inverse_count + epsilon)
    return (wide * (1.0 if gains is None else gains) / root).astype(np.float32)
