"""Rows that a pass gathers: the embedding (bfloat16) and the rotary table (float32 cos, sin pairs)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import ml_dtypes
import numpy as np

from hls_py.model_import.parts import Rows
from hls_py.packing.trigonometry import cosine_and_sine
from hls_py.schedule.program import TableLayout
from hls_py.schedule.shape import ModelShape

CHUNK_ROWS = 4096


def rotary_rows(frequencies: np.ndarray, first: int, last: int) -> np.ndarray:
    """float32 [last − first, 2·pairs]: cos and sin of each pair's angle at these positions, alternating."""
    angles = np.arange(first, last, dtype=np.float32)[:, None] * frequencies
    return np.stack(cosine_and_sine(angles), axis=2).reshape(last - first, -1)


def write_tables(file: BinaryIO, shape: ModelShape, embedding: Rows) -> None:
    """Embedding rows, then rotary rows, each padded to whole beats."""
    for part in table_chunks(shape, embedding):
        file.write(part)


def table_chunks(shape: ModelShape, embedding: Rows) -> Iterator[bytes]:
    """The bytes of the tables, some thousand rows at a time."""
    beat_bytes = shape.params.beat_bytes
    layout = TableLayout(shape)
    c = shape.config

    def rows(values: np.ndarray, row_beats: int) -> bytes:
        raw = values.view(np.uint8).reshape(len(values), -1)
        padded = np.zeros((len(values), row_beats * beat_bytes), np.uint8)
        padded[:, : raw.shape[1]] = raw
        return padded.tobytes()

    for first in range(0, c.vocabulary, CHUNK_ROWS):
        values = embedding.read(first, min(first + CHUNK_ROWS, c.vocabulary))
        yield rows(np.ascontiguousarray(values.astype(ml_dtypes.bfloat16)), layout.embedding_row_beats)
    frequencies = c.rope.frequencies(c.head_dim)
    for first in range(0, c.max_positions, CHUNK_ROWS):
        last = min(first + CHUNK_ROWS, c.max_positions)
        yield rows(rotary_rows(frequencies, first, last), layout.rotary_row_beats)
