"""The running output of the row-vectors: a tile's sums merged into it, and the last tile's result handed on."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import tile_shapes
from rtl.attention.attention_words import AttentionWords
from rtl.attention.merge_factors import FACTORS, MergeFactors
from rtl.attention.queue import Queue
from rtl.attention.row_vectors import RowVectorCounter
from rtl.attention.value_accumulator import sums_read
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for, round_up, signed_range
from rtl.streams import shapes
from rtl.weight_buffer.uram_bank import UramBank, style_for


class Merge(wiring.Component):
    """o = merge_output(o, acc, α, cb, first) of each row-vector and tile; after the last tile value = o/l.

    A tile that a row-vector doesn't see is passed over. One that has seen nothing at all gives zeros.

    Parameters
    ----------
    params  : S = ``segments`` dims a cycle, W = ``vector_lanes`` elements a word, max_row_vectors, max_head_dim.
    kernels : name → kernel; uses ``merge_factors``, ``reciprocal``, ``merge_output``, ``attention_output``.

    Streams and ports
    -----------------
    tile   (in)  : the tiles in order; at most TILES_AHEAD are taken before the first is done.
    states (in)  : m, l, c of each row-vector of each tile.
    sums, sums_filled, sums_release : the ValueAccumulator's read side.
    words  (out) : of a last tile, for each row-vector: its head's words; see ``AttentionWords``.
    tile_done (out) : pulse: a tile's sums are merged. done (out): pulse: a command's last word is delivered.

    Timing: ``interval_cycles`` a tile; the next tile reads what this one has written, so that the pipeline empties.
    """

    def __init__(self, params: DesignParams, kernels: Mapping[str, Any]):
        self.params, self.kernels = params, kernels
        # what rides along to the other side of the kernel
        self._tag_layout = data.StructLayout({
            "address": bits_for(params.max_row_vectors * tile_shapes.dim_groups(params) - 1), "leaves": 1, "started": 1,
            "inverse": 32})
        self._kernel = kernels["merge_output"].pipeline(
            lanes=params.segments, ii=1, tag_bits=self._tag_layout.size,
            ranges={"acc": signed_range(tile_shapes.sum_bits(params))})
        self._factors = MergeFactors(params, kernels)
        super().__init__({
            "tile": In(stream.Signature(tile_shapes.tile(params))),
            "states": In(stream.Signature(tile_shapes.ROW_STATE)),
            "sums": Out(sums_read(params)),
            "sums_filled": In(1),
            "sums_release": Out(1),
            "words": Out(stream.Signature(shapes.vector_word(params))),
            "tile_done": Out(1),
            "done": Out(1),
        })

    def interval_cycles(self, row_vectors: int, head_dim: int) -> int:
        """Cycles of a tile that is there, ``row_vectors`` of which see something, when nobody stalls."""
        dim_groups = round_up(head_dim, SEGMENT_BYTES) // self.params.segments
        return max(row_vectors * dim_groups + 3 + self._kernel.latency_cycles,
                   self._factors.interval_cycles(row_vectors))

    def elaborate(self, platform):
        m = Module()
        params = self.params
        S, dim_groups = params.segments, tile_shapes.dim_groups(params)
        tile_layout = tile_shapes.tile(params)

        m.submodules.factor_tiles = factor_tiles = Queue(tile_layout, tile_shapes.TILES_AHEAD)
        m.submodules.merge_tiles = merge_tiles = Queue(tile_layout, tile_shapes.TILES_AHEAD)
        m.submodules.word_tiles = word_tiles = Queue(tile_layout, tile_shapes.TILES_AHEAD)
        queues = (factor_tiles, merge_tiles, word_tiles)
        taken = self.tile.valid & self.tile.ready
        m.d.comb += self.tile.ready.eq(Cat(queue.i.ready for queue in queues).all())
        for queue in queues:
            is_wanted = self.tile.p.last_tile if queue is word_tiles else 1
            m.d.comb += [queue.i.valid.eq(taken & is_wanted), queue.i.p.eq(self.tile.p)]

        m.submodules.factors = factor_unit = self._factors
        wiring.connect(m, factor_tiles.o, factor_unit.tile)
        wiring.connect(m, factor_unit.states, wiring.flipped(self.states))
        m.submodules.words = words = AttentionWords(params, self.kernels)
        wiring.connect(m, word_tiles.o, words.tile)
        wiring.connect(m, words.words, wiring.flipped(self.words))
        m.d.comb += self.done.eq(words.done)

        depth = params.max_row_vectors * dim_groups
        m.submodules.output_memory = memory = UramBank(32 * S, depth, style=style_for(depth))
        tag_layout = self._tag_layout
        m.submodules.merge_output = kernel = self._kernel

        # stage 0: which word
        tile, factor = merge_tiles.o.p, factor_unit.factors.p
        place = RowVectorCounter("merge", params, params.row_vectors // 2)
        dim_group, draining, released = Signal(tile_shapes.dim_group_bits(params)), Signal(), Signal()
        advance, issue, row_ends = Signal(), Signal(), Signal()
        padded_dim = ((tile.head_dim + SEGMENT_BYTES - 1) >> 4) << 4
        active = merge_tiles.o.valid & factor_unit.factors.valid & self.sums_filled & ~draining
        skip = ~factor.seen & ~tile.last_tile
        m.d.comb += [
            issue.eq(active & ~skip),
            row_ends.eq(active & advance & (skip | (dim_group == (padded_dim >> _log2(S)) - 1))),
            factor_unit.factors.ready.eq(row_ends),
            self.sums.enable.eq(advance), self.sums.turn.eq(place.turn), self.sums.pair.eq(place.lane),
            self.sums.dim_group.eq(dim_group),
            memory.read_enable.eq(advance), memory.read_address.eq(place.index * dim_groups + dim_group),
        ]
        with m.If(issue & advance):
            m.d.sync += dim_group.eq(dim_group + 1)
        with m.If(row_ends):
            m.d.sync += [dim_group.eq(0), draining.eq(place.is_last(tile.row_vectors))]
            place.step(m, tile.row_vectors, tile.queries_per_kv)

        # stages 1 and 2: the memories' data
        step_layout = data.StructLayout({"factors": FACTORS, "address": tag_layout["address"].shape, "leaves": 1})
        step_1, step_2 = Signal(step_layout), Signal(step_layout)
        valid_1, valid_2 = Signal(), Signal()
        running = Signal(data.ArrayLayout(32, S), reset_less=True)
        with m.If(advance):
            m.d.sync += [
                valid_1.eq(issue), step_1.factors.eq(factor), step_1.address.eq(memory.read_address),
                step_1.leaves.eq(tile.last_tile),
                valid_2.eq(valid_1), step_2.eq(step_1),
                # −0·1 + x is x, whatever x is: the registers' reset chooses, not a multiplexer behind the sum
                running.eq(Mux(step_1.factors.first, Cat(Const(1 << 31, 32) for _ in range(S)), memory.read_data)),
            ]
        tag = Signal(tag_layout)
        in_kernel = Signal(8)
        m.d.comb += [
            advance.eq(~valid_2 | kernel.i.ready), kernel.i.valid.eq(valid_2),
            kernel.i.p.alpha.eq(step_2.factors.alpha), kernel.i.p.cb.eq(step_2.factors.cb),
            kernel.i.p.first.eq(0), kernel.i.p.o.eq(running),
            *(kernel.i.p.acc[s].eq(self.sums.data[s]) for s in range(S)),  # 0 if nothing is seen: so are the weights
            tag.address.eq(step_2.address), tag.leaves.eq(step_2.leaves), tag.started.eq(step_2.factors.started),
            tag.inverse.eq(step_2.factors.inverse), kernel.i.p.tag.eq(tag),
        ]

        tag_out = data.View(tag_layout, kernel.o.p.tag)
        out = kernel.o.valid & kernel.o.ready
        m.d.comb += [
            words.i.valid.eq(kernel.o.valid & tag_out.leaves), kernel.o.ready.eq(~tag_out.leaves | words.i.ready),
            words.i.p.o.eq(kernel.o.p.value), words.i.p.inverse.eq(tag_out.inverse),
            words.i.p.started.eq(tag_out.started),
            memory.write_enable.eq(out), memory.write_address.eq(tag_out.address),
            memory.write_data.eq(kernel.o.p.value),
        ]
        m.d.sync += in_kernel.eq(in_kernel + (valid_2 & kernel.i.ready) - out)

        # the next tile reads what this one has written
        m.d.comb += [
            self.sums_release.eq(draining & ~released & ~valid_1),
            self.tile_done.eq(draining & ~valid_1 & ~valid_2 & (in_kernel == 0)),
            merge_tiles.o.ready.eq(self.tile_done),
        ]
        with m.If(self.sums_release):
            m.d.sync += released.eq(1)
        with m.If(self.tile_done):
            m.d.sync += [draining.eq(0), released.eq(0)]
        return m


def _log2(value: int) -> int:
    return value.bit_length() - 1
