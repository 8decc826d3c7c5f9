"""A layer's matrices in the arrangement of the hardware's vectors: padded, heads aligned, rotary pairs adjacent."""

from __future__ import annotations

import numpy as np

from hls_py.model_import.model import Layer
from hls_py.schedule.shape import ModelShape
from hls_py.schedule.stream_order import Matrix, Norm


def rotary_pair_order(head_dim: int) -> np.ndarray:
    """Natural dims in stored order: 0, d/2, 1, d/2 + 1, … (rotate_half's pairs become neighbours)."""
    return np.arange(head_dim).reshape(2, -1).T.reshape(-1)


def arrange_heads(codes: np.ndarray, shape: ModelShape, heads: int, rotary: bool) -> np.ndarray:
    """[heads·head_dim, K] → [heads·head_width, K]; rotary dims in pair order."""
    d = shape.config.head_dim
    by_head = codes.reshape(heads, d, -1)
    if rotary:
        by_head = by_head[:, rotary_pair_order(d)]
    padded = np.zeros((heads, shape.head_width, by_head.shape[2]), codes.dtype)
    padded[:, :d] = by_head
    return padded.reshape(heads * shape.head_width, -1)


def pad_to(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``array`` in the low corner of zeros."""
    if array.shape == shape:
        return array
    padded = np.zeros(shape, array.dtype)
    padded[tuple(slice(0, n) for n in array.shape)] = array
    return padded


def arranged_matrix(layer: Layer, matrix: Matrix, shape: ModelShape) -> np.ndarray:
    """Codes [outputs, K] of ``matrix`` with the paddings of the hardware's vectors."""
    codes = getattr(layer, matrix.value).codes
    c = shape.config
    if matrix in (Matrix.QUERY, Matrix.KEY, Matrix.VALUE):
        heads = c.heads if matrix is Matrix.QUERY else c.kv_heads
        arranged = arrange_heads(codes, shape, heads, matrix is not Matrix.VALUE)
        return pad_to(arranged, (len(arranged), shape.hidden))
    if matrix is Matrix.OUTPUT:
        by_input = arrange_heads(codes.T, shape, c.heads, False).T
        return pad_to(by_input, (shape.hidden, shape.attention_width))
    if matrix is Matrix.DOWN:
        return pad_to(codes, (shape.hidden, shape.ffn))
    return pad_to(codes, (shape.ffn, shape.hidden))


def arranged_gains(gains: np.ndarray, norm: Norm, shape: ModelShape) -> np.ndarray:
    """float32 gains of a norm along the vector it acts on."""
    if norm is Norm.ATTENTION:
        return arrange_heads(gains[:, None], shape, shape.config.heads, False)[:, 0]
    return pad_to(gains, (shape.ffn if norm is Norm.FFN else shape.hidden,))


def quantise_head_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes and float32 scale of vocabulary rows [n, hidden]: scale = absmax/127, ties to even."""
    scale = (np.abs(rows).max(axis=1) / np.float32(127)).astype(np.float32)
    safe = np.where(scale == 0, np.float32(1), scale)
    codes = np.clip(np.rint(rows / safe[:, None]), -127, 127).astype(np.int8)
    return codes, scale
