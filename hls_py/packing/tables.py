"""Rows that a pass gathers: the embedding (bfloat16) and the rotary table (float32 cos, sin pairs)."""

from __future__ import annotations

from typing import BinaryIO

import ml_dtypes
import numpy as np

from hls_py.schedule.program import TableLayout
from hls_py.schedule.shape import ModelShape

CHUNK_ROWS = 4096


def rotary_rows(head_dim: int, theta: float, positions: int) -> np.ndarray:
    """float32 [positions, head_dim]: cos and sin of each pair's angle, alternating."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.power(np.float32(theta), exponents, dtype=np.float32)
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(positions, head_dim)


def write_tables(file: BinaryIO, shape: ModelShape, embedding: np.ndarray) -> None:
    """Embedding rows, then rotary rows, each padded to whole beats."""
    beat_bytes = shape.params.beat_bytes
    layout = TableLayout(shape)
    c = shape.config

    def rows(values: np.ndarray, row_beats: int) -> bytes:
        raw = values.view(np.uint8).reshape(len(values), -1)
        padded = np.zeros((len(values), row_beats * beat_bytes), np.uint8)
        padded[:, : raw.shape[1]] = raw
        return padded.tobytes()

    for first in range(0, c.vocabulary, CHUNK_ROWS):
        part = np.ascontiguousarray(embedding[first:first + CHUNK_ROWS].astype(ml_dtypes.bfloat16))
        file.write(rows(part, layout.embedding_row_beats))
    rotary = rotary_rows(c.head_dim, c.rope_theta, c.max_positions)
    file.write(rows(rotary, layout.rotary_row_beats))
