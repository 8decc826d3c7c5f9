"""Softmax of a tile, row-vector by row-vector, in three stages that work on different row-vectors."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import tile_shapes
from rtl.attention.queue import Queue
from rtl.attention.row_reduction import RowReduction
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import EXP_FRACTION_BITS, SEGMENT_BYTES, WEIGHT_BITS, WEIGHT_HALF_BITS

TILE_FLAGS = {"first_row_vector": 1, "last_row_vector": 1}
BLOCK_CYCLES = 2
"""Of a block of 16 positions, and so of a row-vector, at least."""
CONTEXTS = 8
"""Row-vectors that may be inside a pipeline at once: its latency over the shortest row-vector that should flow."""


class Softmax(wiring.Component):
    """From scores s[t] of a row-vector, visible bits and σV[t] to quantised weights and what merging tiles needs.

    1. m = max s;  2. (e, w) = softmax_weight(s, m, σV), l = Σ e, max w;  3. (c, 1/c) = weight_scale(max w),
    wq = weight_quantise(w, 1/c). Only over visible positions; an invisible position's weight is 0.

    Parameters
    ----------
    params  : S = ``segments`` scores a word; A = ``row_vectors`` lanes.
    kernels : name → kernel; uses ``softmax_weight``, ``weight_scale``, ``weight_quantise``.

    Streams
    -------
    rows    (in)  : words of S positions, framed by row-vector; the tile's first and last row-vector are marked.
    weights (out) : for each row-vector, for each block of 16 positions that holds scored ones: all 16 bytes of the
        high halves, then of the low halves; byte b is position b, zero where nothing was scored.
    weights_free  (in)  : one token for each tile whose weights may be written; taken at the tile's start.
    weights_ready (out) : one token for each tile whose weights are all written.
    states  (out) : for each row-vector m, l, c and whether anything was visible (else m, l, c are zeros).

    Timing: a word a cycle, but 2 cycles a block of 16 positions at least.
    Number format: maxima in IEEE order, −0 < +0, a NaN above all; l is an exact integer in units of 2⁻²⁰.
    """

    def __init__(self, params: DesignParams, kernels: Mapping[str, Any]):
        self.params, self.kernels = params, kernels
        super().__init__({
            "rows": In(stream.Signature(tile_shapes.score_row(params))),
            "weights": Out(stream.Signature(tile_shapes.weight_write(params))),
            "weights_free": In(stream.Signature(1)),
            "weights_ready": Out(stream.Signature(1)),
            "states": Out(stream.Signature(tile_shapes.ROW_STATE)),
        })

    def elaborate(self, platform):
        m = Module()
        words, heads = self._maximum(m)
        words, heads = self._exponentials(m, words, heads)
        self._quantise(m, words, heads)
        return m

    def _queue(self, m, name: str, layout: dict, depth: int) -> Queue:
        queue = Queue(data.StructLayout(layout), depth)
        m.submodules[name] = queue
        return queue

    def _word_depth(self, latency: int) -> int:
        """Words between two stages: a row-vector, and what comes in until its header is known."""
        depth = tile_shapes.position_groups(self.params) + latency
        return 1 << (depth - 1).bit_length()

    def _maximum(self, m):
        """Stage 1: words, and behind a row-vector's last word its maximum; returns both streams."""
        S = self.params.segments
        words = self._queue(m, "score_words", {
            "first": 1, "last": 1, "visible": S, "score": data.ArrayLayout(32, S),
            "value_scale": data.ArrayLayout(16, S)}, self._word_depth(16))
        flags = self._queue(m, "score_flags", TILE_FLAGS, CONTEXTS)
        heads = self._queue(m, "score_heads", {"maximum": 32, **TILE_FLAGS}, 4)
        m.submodules.score_maximum = reduction = RowReduction(S)
        row = self.rows.p
        taken = self.rows.valid & self.rows.ready
        m.d.comb += [
            self.rows.ready.eq(words.i.ready & reduction.i.ready & flags.i.ready),
            words.i.valid.eq(taken), reduction.i.valid.eq(taken), flags.i.valid.eq(taken & row.last),
            *(words.i.p[name].eq(row[name]) for name in ("first", "last", "visible", "score", "value_scale")),
            *(reduction.i.p[name].eq(row[name]) for name in ("first", "last", "visible")),
            reduction.i.p.value.eq(row.score),
        ]
        m.d.comb += [flags.i.p[name].eq(row[name]) for name in TILE_FLAGS]
        _join(m, heads, {"maximum": reduction.o.p.maximum}, reduction.o, flags.o)
        return words.o, heads.o

    def _exponentials(self, m, scores, heads):
        """Stage 2: weights, and for each row-vector (c, 1/c), m, l."""
        S = self.params.segments
        tag_layout = data.StructLayout({"first": 1, "last": 1, "visible": S})
        m.submodules.softmax_weight = kernel = self.kernels["softmax_weight"].pipeline(
            lanes=S, ii=1, tag_bits=tag_layout.size)
        context_layout = {"maximum": 32, **TILE_FLAGS}
        contexts = self._queue(m, "weight_contexts", context_layout, CONTEXTS)
        tag = Signal(tag_layout)
        start = scores.valid & heads.valid & contexts.i.ready
        m.d.comb += [
            *(tag[name].eq(scores.p[name]) for name, _ in tag_layout),
            kernel.i.valid.eq(start), kernel.i.p.tag.eq(tag),
            kernel.i.p.score.eq(scores.p.score), kernel.i.p.maximum.eq(heads.p.maximum),
            *(kernel.i.p.v_scale[s].eq(scores.p.value_scale[s] << 16) for s in range(S)),
            scores.ready.eq(start & kernel.i.ready), heads.ready.eq(start & kernel.i.ready & scores.p.last),
            contexts.i.valid.eq(heads.ready), *(contexts.i.p[name].eq(heads.p[name]) for name in context_layout),
        ]

        words = self._queue(m, "weight_words", {**_fields(tag_layout), "weight": data.ArrayLayout(32, S)},
                            self._word_depth(64))
        m.submodules.weight_maximum = reduction = RowReduction(S, EXP_FRACTION_BITS + 1, tile_shapes.TOTAL_BITS)
        tag_out = data.View(tag_layout, kernel.o.p.tag)
        taken = kernel.o.valid & kernel.o.ready
        m.d.comb += [
            kernel.o.ready.eq(words.i.ready & reduction.i.ready),
            words.i.valid.eq(taken), words.i.p.weight.eq(kernel.o.p.weight),
            reduction.i.valid.eq(taken), reduction.i.p.value.eq(kernel.o.p.weight),
            *(reduction.i.p.addend[s].eq(kernel.o.p.exponential[s][:EXP_FRACTION_BITS + 1]) for s in range(S)),
        ]
        for name, _ in tag_layout:
            m.d.comb += [words.i.p[name].eq(tag_out[name]), reduction.i.p[name].eq(tag_out[name])]

        # max w → (c, 1/c); the rest goes beside
        m.submodules.weight_scale = scale = self.kernels["weight_scale"].pipeline(
            lanes=1, ii=BLOCK_CYCLES, tag_bits=0)
        beside_layout = {**context_layout, "total": tile_shapes.TOTAL_BITS, "seen": 1}
        beside = self._queue(m, "scale_contexts", beside_layout, CONTEXTS)
        start = reduction.o.valid & contexts.o.valid & beside.i.ready
        m.d.comb += [
            scale.i.valid.eq(start), scale.i.p.max_weight[0].eq(reduction.o.p.maximum),
            reduction.o.ready.eq(start & scale.i.ready), contexts.o.ready.eq(start & scale.i.ready),
            beside.i.valid.eq(start & scale.i.ready),
            *(beside.i.p[name].eq(contexts.o.p[name]) for name in context_layout),
            beside.i.p.total.eq(reduction.o.p.total), beside.i.p.seen.eq(reduction.o.p.seen),
        ]
        heads = self._queue(m, "weight_heads", {"scale": 32, "inverse": 32, **beside_layout}, 4)
        _join(m, heads, {"scale": scale.o.p.scale[0], "inverse": scale.o.p.inverse[0]}, scale.o, beside.o)
        return words.o, heads.o

    def _quantise(self, m, words, heads):
        """Stage 3: 14-bit weights in blocks of 16 positions, and the row-vector's state."""
        S = self.params.segments
        tag_layout = data.StructLayout({"last": 1, "visible": S, **TILE_FLAGS})
        m.submodules.weight_quantise = kernel = self.kernels["weight_quantise"].pipeline(
            lanes=S, ii=1, tag_bits=tag_layout.size)
        states = Queue(tile_shapes.ROW_STATE, 2)
        m.submodules.states = states
        tag = Signal(tag_layout)
        starts_tile = words.p.first & heads.p.first_row_vector
        start = words.valid & heads.valid & (~starts_tile | self.weights_free.valid) & states.i.ready
        ends = start & kernel.i.ready & words.p.last
        m.d.comb += [
            tag.last.eq(words.p.last), tag.visible.eq(words.p.visible), *(tag[f].eq(heads.p[f]) for f in TILE_FLAGS),
            kernel.i.valid.eq(start), kernel.i.p.tag.eq(tag),
            kernel.i.p.weight.eq(words.p.weight), kernel.i.p.inverse.eq(heads.p.inverse),
            words.ready.eq(start & kernel.i.ready), heads.ready.eq(ends),
            self.weights_free.ready.eq(start & kernel.i.ready & starts_tile),
            states.i.valid.eq(ends),
            states.i.p.maximum.eq(Mux(heads.p.seen, heads.p.maximum, 0)), states.i.p.total.eq(heads.p.total),
            states.i.p.scale.eq(heads.p.scale), states.i.p.seen.eq(heads.p.seen),
        ]
        wiring.connect(m, states.o, wiring.flipped(self.states))
        m.submodules.blocks = blocks = WeightBlocks(self.params)
        tag_out = data.View(tag_layout, kernel.o.p.tag)
        m.d.comb += [
            blocks.i.valid.eq(kernel.o.valid), kernel.o.ready.eq(blocks.i.ready),
            *(blocks.i.p[name].eq(tag_out[name]) for name in ("last", *TILE_FLAGS)),
            *(blocks.i.p.weight[s].eq(Mux(tag_out.visible[s], kernel.o.p.value[s][:WEIGHT_BITS], 0)) for s in range(S)),
        ]
        wiring.connect(m, blocks.weights, wiring.flipped(self.weights))
        wiring.connect(m, blocks.weights_ready, wiring.flipped(self.weights_ready))


class WeightBlocks(wiring.Component):
    """Words of S weights, framed by row-vector, to bytes of 16 positions for two lanes of the array.

    Row-vector i's high half goes to lane 2i mod A of turn 2i div A, its low half to the lane behind it.
    A word a cycle, 2 cycles a block at least; see ``Softmax`` for the streams.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "last": 1, **TILE_FLAGS, "weight": data.ArrayLayout(WEIGHT_BITS, params.segments)}))),
            "weights": Out(stream.Signature(tile_shapes.weight_write(params))),
            "weights_ready": Out(stream.Signature(1)),
        })

    def elaborate(self, platform):
        m = Module()
        S, A = self.params.segments, self.params.row_vectors
        words = SEGMENT_BYTES // S
        word = self.i.p
        sub = Signal(range(words))
        block_layout = data.ArrayLayout(WEIGHT_BITS, SEGMENT_BYTES)
        gathered, whole = Signal(block_layout), Signal()
        ends = Signal(data.StructLayout({"row_vector": 1, "tile": 1}))
        completes = word.last | (sub == words - 1)

        # the block on its way out: high half, then low half
        out, low, busy, row_vector_ends, tile_ends = Signal(block_layout), Signal(), Signal(), Signal(), Signal()
        leaves, taken = Signal(), Signal()
        block, turn, lane = (Signal.like(self.weights.p[name]) for name in ("block", "turn", "lane"))
        sent = self.weights.valid & self.weights.ready
        block_sent = sent & low
        tokens = Signal(2)  # tiles written and not yet announced
        m.d.comb += [
            self.weights.valid.eq(busy & ~(tokens.all())),
            self.weights.p.turn.eq(turn), self.weights.p.block.eq(block), self.weights.p.lane.eq(lane + low),
            self.weights.p.mask.eq(~0),
            self.weights.p.data.eq(Cat(
                Cat(Mux(low, out[n][:WEIGHT_HALF_BITS], out[n][WEIGHT_HALF_BITS:]), 0) for n in range(SEGMENT_BYTES))),
            self.weights_ready.valid.eq(tokens != 0),
            leaves.eq(whole & (~busy | block_sent)),
            self.i.ready.eq(~whole | leaves), taken.eq(self.i.valid & self.i.ready),
        ]
        with m.If(sent):
            m.d.sync += low.eq(~low)
        with m.If(block_sent):
            m.d.sync += [busy.eq(0), block.eq(block + 1)]
            with m.If(row_vector_ends):
                m.d.sync += block.eq(0)
                with m.If(tile_ends):
                    m.d.sync += [turn.eq(0), lane.eq(0)]
                with m.Elif(lane == A - 2):
                    m.d.sync += [turn.eq(turn + 1), lane.eq(0)]
                with m.Else():
                    m.d.sync += lane.eq(lane + 2)
        m.d.sync += tokens.eq(tokens + (block_sent & row_vector_ends & tile_ends)
                              - (self.weights_ready.valid & self.weights_ready.ready))
        with m.If(leaves):
            m.d.sync += [out.eq(gathered), busy.eq(1), whole.eq(0), row_vector_ends.eq(ends.row_vector),
                         tile_ends.eq(ends.tile)]
        with m.If(taken):
            m.d.sync += [sub.eq(Mux(completes, 0, sub + 1)), whole.eq(completes), ends.row_vector.eq(word.last),
                         ends.tile.eq(word.last & word.last_row_vector)]
            for n in range(SEGMENT_BYTES):  # a block's first word clears the others
                with m.If(sub == n // S):
                    m.d.sync += gathered[n].eq(word.weight[n % S])
                with m.Elif(sub == 0):
                    m.d.sync += gathered[n].eq(0)
        return m


def _fields(layout: data.StructLayout) -> dict:
    return {name: field.shape for name, field in layout}


def _join(m, queue: Queue, values: dict, *sources) -> None:
    """Fill ``queue`` with ``values`` and the fields of the last of ``sources`` when all of them are valid."""
    valid = Cat(source.valid for source in sources).all()
    m.d.comb += queue.i.valid.eq(valid)
    m.d.comb += [source.ready.eq(valid & queue.i.ready) for source in sources]
    m.d.comb += [queue.i.p[name].eq(value) for name, value in values.items()]
    m.d.comb += [queue.i.p[name].eq(sources[-1].p[name]) for name, _ in sources[-1].p.shape()]
