"""From integer scores to attention values: the part of attention between the int8 array and the vector unit."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import tile_shapes
from rtl.attention.merge import Merge
from rtl.attention.scores import Scores
from rtl.attention.softmax import Softmax
from rtl.attention.value_accumulator import ValueAccumulator
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES
from rtl.streams import shapes


class SoftmaxPath(wiring.Component):
    """Tile-wise softmax over a KV cache with an output that runs across tiles.

    For each tile and row-vector, over the visible positions t:
    s = score(q·k, query_scale(σq, factor), σK); m = max s; e, w = softmax_weight(s, m, σV); l = Σ e;
    c, 1/c = weight_scale(max w); wq = weight_quantise(w, 1/c); and with acc = Σ wq·V from the array
    (m, l, o) takes in (m, l, c, acc). After the last tile of a group and KV head: value = o/l.
    A tile that a row-vector doesn't see at all changes nothing for it; its first visible tile initialises m, l, o; one
    that never saw anything gives zeros. See ``hls_py.golden.attention.softmax``.

    Parameters
    ----------
    params  : S = ``segments``, A = ``row_vectors``, W = ``vector_lanes``, P = ``rows``; row-vectors of a tile are at
              most ``max_row_vectors``, head_dim at most ``max_head_dim``.
    kernels : name → kernel with ``.pipeline(lanes, ii, tag_bits)``: query_scale, score, softmax_weight, weight_scale,
              weight_quantise, merge_factors, reciprocal, merge_output, attention_output.

    Streams and ports (payloads: tile_shapes)
    -----------------------------------------
    tile   (in)  : every tile, newest first within a (group, KV head); ahead of its scores. At most TILES_AHEAD
                   tiles are taken before the first of them is merged.
    scales (in)  : σK, σV of the tile's position groups, rising; two tiles fit.
    scores (in)  : for each position group rising, for each turn rising; two tiles fit.
    query_scale_address (out), query_scale_data (in) : bfloat16 σq of a row and query head, one cycle later; read once
                   a row-vector between the tile's first score and its weights.
    weights (out), weights_free (in), weights_ready (out) : both halves of wq as bytes; a token to start writing a
                   tile's, a token when they are written.
    value_sums (in) : Σ wq·V by block of 16 positions: per block rising, dim group rising, turn rising; two tiles fit.
    words  (out) : for each row-vector of a last tile, its head's words.
    tile_done (out) : pulse: a tile's sums are merged. done (out): pulse: the last word of a command was taken.

    Timing: ``interval_cycles`` a tile once the stages are full, each of which works on another row-vector or tile.
    Number formats: contract; maxima in IEEE order, −0 < +0, a NaN above all.
    """

    def __init__(self, params: DesignParams, kernels: Mapping[str, Any]):
        self.params, self.kernels = params, kernels
        self._merge = Merge(params, kernels)
        super().__init__({
            "tile": In(stream.Signature(tile_shapes.tile(params))),
            "pass_state": In(shapes.pass_state(params)),
            "scales": In(stream.Signature(tile_shapes.scale_group(params))),
            "scores": In(stream.Signature(tile_shapes.score_sums(params))),
            "query_scale_address": Out(tile_shapes.query_address(params)),
            "query_scale_data": In(16),
            "weights": Out(stream.Signature(tile_shapes.weight_write(params))),
            "weights_free": In(stream.Signature(1)),
            "weights_ready": Out(stream.Signature(1)),
            "value_sums": In(stream.Signature(tile_shapes.value_sums(params))),
            "words": Out(stream.Signature(shapes.vector_word(params))),
            "tile_done": Out(1),
            "done": Out(1),
        })

    def interval_cycles(self, row_vectors: int, groups: int, head_dim: int) -> int:
        """Cycles between tiles in steady state, those of the slowest part, when nobody stalls.

        Parameters
        ----------
        row_vectors : of a tile, all of which see something.
        groups      : its position groups.
        """
        A, S = self.params.row_vectors, self.params.segments
        blocks = -(-groups * S // SEGMENT_BYTES)
        turns = [A] * (row_vectors // A) + [row_vectors % A]
        fill = groups * sum(Scores.fill_cycles(self.params, lanes) for lanes in turns)
        softmax = row_vectors * max(groups, 2 * blocks)
        sums = ValueAccumulator.interval_cycles(self.params, row_vectors, blocks, head_dim)
        refill = -(-(fill + row_vectors * groups + 1) // 2)  # of two score buffers: one tile comes in, then it is read
        return max(refill, fill, softmax, sums, self._merge.interval_cycles(row_vectors, head_dim))

    def elaborate(self, platform):
        m = Module()
        m.submodules.scores = scores = Scores(self.params, self.kernels)
        m.submodules.softmax = softmax = Softmax(self.params, self.kernels)
        m.submodules.sums = sums = ValueAccumulator(self.params)
        m.submodules.merge = merge = self._merge

        taken = self.tile.valid & self.tile.ready
        m.d.comb += [
            self.tile.ready.eq(scores.tile.ready & merge.tile.ready),
            scores.tile.valid.eq(taken), merge.tile.valid.eq(taken),
            scores.tile.p.eq(self.tile.p), merge.tile.p.eq(self.tile.p),
            self.query_scale_address.eq(scores.query_scale_address), scores.query_scale_data.eq(self.query_scale_data),
            sums.release.eq(merge.sums_release), merge.sums_filled.eq(sums.filled),
            self.tile_done.eq(merge.tile_done), self.done.eq(merge.done),
        ]
        wiring.connect(m, wiring.flipped(self.pass_state), scores.pass_state)
        wiring.connect(m, wiring.flipped(self.scales), scores.scales)
        wiring.connect(m, wiring.flipped(self.scores), scores.scores)
        wiring.connect(m, scores.rows, softmax.rows)
        wiring.connect(m, softmax.weights, wiring.flipped(self.weights))
        wiring.connect(m, wiring.flipped(self.weights_free), softmax.weights_free)
        wiring.connect(m, softmax.weights_ready, wiring.flipped(self.weights_ready))
        wiring.connect(m, wiring.flipped(self.value_sums), sums.value_sums)
        wiring.connect(m, merge.sums, sums.read)
        wiring.connect(m, softmax.states, merge.states)
        wiring.connect(m, merge.words, wiring.flipped(self.words))
        return m
