"""The order of records in the weight stream, by shape alone: the packing writes them, the program consumes them.

A norm's gains come before the codes whose drain (or attention) gathers that norm's statistics; banks alternate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from hls_py.schedule.shape import ModelShape
from hls_py.schedule.tiles import Tile, plan_tiles
from rtl.contract.number_formats import VECTOR_ALIGN, round_up
from rtl.contract.stream_records import HEAD_CHUNK_ROWS


class Matrix(Enum):
    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    OUTPUT = "output"
    GATE = "gate"
    UP = "up"
    DOWN = "down"


class Norm(Enum):
    INPUT = "input_gain"
    ATTENTION = "attention_gain"
    POST_ATTENTION = "post_attention_gain"
    FFN = "ffn_gain"
    FINAL = "final_gain"


@dataclass(frozen=True)
class Gains:
    layer: int
    norm: Norm
    bank: int


@dataclass(frozen=True)
class Codes:
    layer: int
    matrix: Matrix
    tile: Tile


@dataclass(frozen=True)
class HeadRows:
    """Vocabulary rows ``first`` … ``first + rows − 1``: a HEAD_SCALES and a HEAD_ROWS record."""

    first: int
    rows: int


def norms(shape: ModelShape) -> list[tuple[int, Norm]]:
    """(layer, norm) of a pass in order; the n-th uses bank n mod 2."""
    order: list[tuple[int, Norm]] = []
    for layer in range(shape.config.layers):
        order.append((layer, Norm.INPUT))
        if shape.attention_sub_norm:
            order.append((layer, Norm.ATTENTION))
        order.append((layer, Norm.POST_ATTENTION))
        if shape.ffn_sub_norm:
            order.append((layer, Norm.FFN))
    return [*order, (shape.config.layers, Norm.FINAL)]


def gain_banks(shape: ModelShape) -> dict[tuple[int, Norm], int]:
    return {norm: n % 2 for n, norm in enumerate(norms(shape))}


def matrix_tiles(shape: ModelShape, matrix: Matrix) -> list[Tile]:
    c = shape.config
    outputs, unit = {
        Matrix.QUERY: (c.heads * shape.head_width, shape.head_width),
        Matrix.KEY: (c.kv_heads * shape.head_width, shape.head_width),
        Matrix.VALUE: (c.kv_heads * shape.head_width, shape.head_width),
        Matrix.OUTPUT: (shape.hidden, VECTOR_ALIGN),
        Matrix.GATE: (shape.ffn, VECTOR_ALIGN),
        Matrix.UP: (shape.ffn, VECTOR_ALIGN),
        Matrix.DOWN: (shape.hidden, VECTOR_ALIGN),
    }[matrix]
    return plan_tiles(outputs, unit, shape.params)


def layer_records(shape: ModelShape, layer: int) -> Iterator[Gains | Codes]:
    """Records of one layer; the next layer's (or the final) norm's gains come before the down codes."""
    banks = gain_banks(shape)

    def gains(norm: Norm, of_layer: int = layer) -> Gains:
        return Gains(of_layer, norm, banks[of_layer, norm])

    def codes(matrix: Matrix) -> Iterator[Codes]:
        return (Codes(layer, matrix, tile) for tile in matrix_tiles(shape, matrix))

    if layer == 0:
        yield gains(Norm.INPUT)
    if shape.attention_sub_norm:
        yield gains(Norm.ATTENTION)
    yield from codes(Matrix.QUERY)
    yield from codes(Matrix.KEY)
    yield from codes(Matrix.VALUE)
    yield gains(Norm.POST_ATTENTION)
    yield from codes(Matrix.OUTPUT)
    if shape.ffn_sub_norm:
        yield gains(Norm.FFN)
    for gate, up in zip(codes(Matrix.GATE), codes(Matrix.UP)):
        yield gate
        yield up
    last = layer + 1 == shape.config.layers
    yield gains(Norm.FINAL if last else Norm.INPUT, layer + 1)
    yield from codes(Matrix.DOWN)


def head_records(shape: ModelShape) -> Iterator[HeadRows]:
    chunk = round_up(HEAD_CHUNK_ROWS, shape.params.segments)
    vocabulary = shape.config.vocabulary
    for first in range(0, vocabulary, chunk):
        yield HeadRows(first, min(chunk, vocabulary - first))
