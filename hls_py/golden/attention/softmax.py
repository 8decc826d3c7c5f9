"""Golden of rtl/attention/softmax_path.py: the softmax of one tile, and the output that runs across tiles.

A *row-vector* is a query head of a row; n row-vectors of a group share a KV head and are treated alike:

    s = score(dot, query_scale, σK);  m = max s;  e, w = softmax_weight(s, m, σV);  l = Σ e
    c, 1/c = weight_scale(max w);  wq = weight_quantise(w, 1/c)          all over the visible positions of the tile
    acc = Σ wq·V                                                         integers, by the int8 array
    m, l, o = merged with the tile's (merge_factors, merge_output);  value = attention_output(o, 1/l)

Invisible positions are deselected before anything is compared or summed, so their scales may be NaN. A tile that a
row-vector doesn't see at all changes nothing for it; the first one that it sees initialises m, l and o.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hls_py.golden.float32 import Float32Array
from hls_py.kernels.attention import (
    attention_output,
    merge_factors,
    merge_output,
    score,
    softmax_weight,
    weight_quantise,
    weight_scale,
)
from hls_py.kernels.reciprocal import reciprocal
from rtl.contract.number_formats import CANONICAL_NAN, TILE_POSITIONS, WEIGHT_HALF_BITS

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


def tile_visibility(first_row: int, rows: int, difference: int, visible: list[int], queries_per_kv: int,
                    positions: int = TILE_POSITIONS) -> Mask:
    """[rows·queries_per_kv, positions] mask of a group's row-vectors over the positions of a tile.

    Parameters
    ----------
    first_row, rows : the group's rows of the pass.
    difference      : position of the tile's start less the group's past length.
    visible         : bits of each row of the pass: bit j says that it sees row j.
    """
    new = difference + np.arange(positions)  # index among the group's new tokens; negative: the past, always visible
    mask = np.zeros((rows, positions), np.bool_)
    for row in range(rows):
        bits = visible[first_row + row] >> first_row
        mask[row] = [t < 0 or (t < rows and bool(bits >> int(t) & 1)) for t in new]
    return np.repeat(mask, queries_per_kv, axis=0)


@dataclass(frozen=True)
class TileSoftmax:
    """What a tile leaves: for each row-vector m, l (a sum of exp in units of 2⁻²⁰), c, whether it saw anything; wq."""

    maximum: Float32Array
    total: Integers
    scale: Float32Array
    seen: Mask
    weights: Integers

    @property
    def halves(self) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """High and low 7 bits of the weights."""
        high = self.weights >> WEIGHT_HALF_BITS
        return high.astype(np.int8), (self.weights & ((1 << WEIGHT_HALF_BITS) - 1)).astype(np.int8)


def tile_softmax(dots: Integers, visible: Mask, query_scales: Float32Array, key_scales: Float32Array,
                 value_scales: Float32Array) -> TileSoftmax:
    """Softmax of ``dots`` [n, T] over one tile.

    Parameters
    ----------
    visible      : [n, T].
    query_scales : [n], results of the kernel ``query_scale``.
    key_scales, value_scales : [T], or [n, T] where row-vectors differ in KV head.
    """
    scores = score(np.asarray(dots), query_scales[:, None], np.atleast_2d(key_scales))
    maximum = largest_visible(scores, visible)
    exponentials, weights = softmax_weight(scores, maximum[:, None], np.atleast_2d(value_scales))
    scale, inverse = weight_scale(largest_visible(weights, visible))
    quantised = np.where(visible, weight_quantise(weights, inverse[:, None]), 0)
    total = np.where(visible, exponentials, 0).sum(axis=1, dtype=np.int64)
    return TileSoftmax(maximum, total, scale, np.asarray(visible.any(axis=1)), quantised.astype(np.int64))


def largest_visible(values: Float32Array, visible: Mask) -> Float32Array:
    """Largest visible value of each row in IEEE order (−0 < +0, NaN above all); +0 where nothing is visible."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    keys = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
    keys = np.where(visible, keys, 0)
    largest = keys.max(axis=1, initial=0)
    back = np.where(largest >> 31 == 1, largest ^ np.uint32(1 << 31), ~largest)
    found = np.where(visible.any(axis=1), back, 0).astype(np.uint32)
    assert not ((found & 0x7FFFFFFF > 0x7F800000) & (found != CANONICAL_NAN)).any()
    return found.view(np.float32)


class RunningOutput:
    """Maximum, sum and output of n row-vectors, tile by tile (newest first)."""

    def __init__(self, row_vectors: int, dims: int):
        self.maximum = np.zeros(row_vectors, np.float32)
        self.total = np.zeros(row_vectors, np.float32)
        self.output = np.zeros((row_vectors, dims), np.float32)
        self.seen = np.zeros(row_vectors, np.bool_)

    def merge(self, tile: TileSoftmax, sums: Integers) -> None:
        """Take in a tile whose Σ wq·V is ``sums`` [n, dims]."""
        first = ~self.seen
        m, alpha, _, total, cb = merge_factors(self.maximum, tile.maximum, self.total, tile.total.astype(np.int32),
                                               tile.scale, first)
        output = merge_output(self.output, np.asarray(sums), alpha[:, None], cb[:, None], first[:, None])
        self.maximum = np.where(tile.seen, m, self.maximum)
        self.total = np.where(tile.seen, total, self.total)
        self.output = np.where(tile.seen[:, None], output, self.output)
        self.seen = self.seen | tile.seen

    def value(self) -> Float32Array:
        """[n, dims] attention values; zeros for a row-vector that has seen nothing."""
        value = attention_output(self.output, reciprocal(self.total)[:, None])
        return np.where(self.seen[:, None], value, np.float32(0))
