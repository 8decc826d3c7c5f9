"""The order of records in the weight stream, by shape alone: the packing writes them, the program consumes them.

A norm's gains come before the codes whose drain (or attention) gathers that norm's statistics; banks alternate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from hls_py.schedule.shape import ModelShape
from hls_py.schedule.tiles import Chain, Part, Tile, chunk_tiles, plan_chain
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


def head_order(shape: ModelShape) -> list[tuple[Matrix, Tile]]:
    """Tiles of values, queries and keys in order.

    Values first, then queries and keys of some KV heads at a time: attention begins with a head that is complete.
    """
    c = shape.config
    outputs, unit = c.kv_heads * shape.head_width, shape.head_width
    parts = (Part(outputs, unit, head_dim=c.head_dim),
             Part(outputs, unit, factors=(c.queries_per_kv, 1), head_dim=c.head_dim))
    values, others = _chunks(shape, parts, shape.hidden)
    order = [(Matrix.VALUE, tile) for (tiles,) in values for tile in tiles]
    for queries, keys in others:
        order += [(Matrix.QUERY, tile) for tile in queries] + [(Matrix.KEY, tile) for tile in keys]
    return order


def residual_tiles(shape: ModelShape, matrix: Matrix) -> list[Tile]:
    """Of the output or the down matrix."""
    width = shape.ffn if matrix is Matrix.DOWN else shape.attention_width
    (chunks,) = _chunks(shape, (Part(shape.hidden, VECTOR_ALIGN),), width)
    return [tile for (tiles,) in chunks for tile in tiles]


def gated_tiles(shape: ModelShape) -> list[Tile]:
    """Of gate and up alike, which alternate."""
    (chunks,) = _chunks(shape, (Part(shape.ffn, VECTOR_ALIGN, factors=(1, 1), paired=True),), shape.hidden)
    return [tile for gate, _ in chunks for tile in gate]


def _chunks(shape: ModelShape, parts: tuple[Part, ...], width: int) -> list[list[list[list[Tile]]]]:
    plans = plan_chain(Chain(parts, shape.slices(width), shape.max_rows), shape.params)
    return [chunk_tiles(part, plan, shape.params) for part, plan in zip(parts, plans)]


def layer_records(shape: ModelShape, layer: int) -> Iterator[Gains | Codes]:
    """Records of one layer; the next layer's (or the final) norm's gains come before the down codes."""
    banks = gain_banks(shape)

    def gains(norm: Norm, of_layer: int = layer) -> Gains:
        return Gains(of_layer, norm, banks[of_layer, norm])

    def residual(matrix: Matrix) -> Iterator[Codes]:
        return (Codes(layer, matrix, tile) for tile in residual_tiles(shape, matrix))

    if layer == 0:
        yield gains(Norm.INPUT)
    if shape.attention_sub_norm:
        yield gains(Norm.ATTENTION)
    yield from (Codes(layer, matrix, tile) for matrix, tile in head_order(shape))
    yield gains(Norm.POST_ATTENTION)
    yield from residual(Matrix.OUTPUT)
    if shape.ffn_sub_norm:
        yield gains(Norm.FFN)
    for tile in gated_tiles(shape):
        yield Codes(layer, Matrix.GATE, tile)
        yield Codes(layer, Matrix.UP, tile)
    last = layer + 1 == shape.config.layers
    yield gains(Norm.FINAL if last else Norm.INPUT, layer + 1)
    yield from residual(Matrix.DOWN)


def head_records(shape: ModelShape) -> Iterator[HeadRows]:
    chunk = round_up(HEAD_CHUNK_ROWS, shape.params.segments)
    vocabulary = shape.config.vocabulary
    for first in range(0, vocabulary, chunk):
        yield HeadRows(first, min(chunk, vocabulary - first))
