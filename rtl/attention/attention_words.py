"""Finished attention outputs to words of the vector unit."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import tile_shapes
from rtl.attention.row_vectors import RowVectorCounter
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, VECTOR_ALIGN, bits_for, round_up
from rtl.float32.bits import wire
from rtl.streams import shapes


class AttentionWords(wiring.Component):
    """value[d] = attention_output(o[d], 1/l); head h of a row fills words h·words_per_head … of the row's vector.

    words_per_head = round_up(head_dim, VECTOR_ALIGN)/W; elements beyond head_dim are zero.

    Parameters
    ----------
    params  : S = ``segments`` dims a transfer, W = ``vector_lanes`` elements a word.
    kernels : name → kernel; uses ``attention_output``.

    Streams
    -------
    tile  (in)  : the last tile of each (group, KV head): tile_shapes.tile.
    i     (in)  : for each row-vector, S dims at a time up to round_up(head_dim, 16): o, 1/l, whether it has
        ``started``, that is, seen anything (else its values are zeros).
    words (out) : shapes.vector_word; ``last`` on the last word of a tile marked last_of_command.
    done  (out) : pulse after that word was taken.

    Timing: S dims or a word a cycle, whichever takes longer; 4 cycles between tiles.
    """

    def __init__(self, params: DesignParams, kernels: Mapping[str, Any]):
        self.params, self.kernels = params, kernels
        super().__init__({
            "tile": In(stream.Signature(tile_shapes.tile(params))),
            "i": In(stream.Signature(data.StructLayout({
                "o": data.ArrayLayout(32, params.segments), "inverse": 32, "started": 1}))),
            "words": Out(stream.Signature(shapes.vector_word(params))),
            "done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        S, W = self.params.segments, self.params.vector_lanes
        m.submodules.attention_output = kernel = self.kernels["attention_output"].pipeline(lanes=S, ii=1, tag_bits=1)
        m.d.comb += [
            kernel.i.valid.eq(self.i.valid), self.i.ready.eq(kernel.i.ready), kernel.i.p.o.eq(self.i.p.o),
            kernel.i.p.inverse_sum.eq(self.i.p.inverse), kernel.i.p.tag.eq(self.i.p.started),
        ]

        # a tile's first word: two multiplications, a cycle each
        tile = self.tile.p
        widest = round_up(self.params.padded_head_dim, VECTOR_ALIGN)
        head_dim = tile.head_dim[:bits_for(widest)]
        words_per_head = Signal(bits_for(widest // W))
        m.d.comb += words_per_head.eq(((head_dim + VECTOR_ALIGN - 1) >> _log2(VECTOR_ALIGN)) * (VECTOR_ALIGN // W))
        first_head, first_word, prepared = Signal(tile_shapes.HEAD_BITS), Signal(16), Signal(range(4))
        m.d.sync += [first_head.eq(tile.kv_head * tile.queries_per_kv), first_word.eq(first_head * words_per_head)]

        # what comes in: S dims of a row-vector
        place = RowVectorCounter("word", self.params, self.params.row_vectors)
        group, head_word = Signal(range(widest // S)), Signal(16)  # of S dims; the head's first word
        padded_groups = ((head_dim + SEGMENT_BYTES - 1) >> _log2(SEGMENT_BYTES)) * (SEGMENT_BYTES // S)
        row_ends = group == padded_groups - 1
        whole, cut = wire(m, group < head_dim >> _log2(S), "whole"), wire(m, group == head_dim >> _log2(S), "cut")
        values = Signal(data.ArrayLayout(32, S))
        for s in range(S):
            m.d.comb += values[s].eq(Mux(kernel.o.p.tag & (whole | (cut & (s < head_dim[:_log2(S)]))),
                                         kernel.o.p.value[s], 0))
        word = Signal(range(widest // W))  # of the head
        m.d.comb += word.eq((group << _log2(S)) >> _log2(W))
        wanted = word < words_per_head

        # what leaves: the words of a transfer, or one word gathered from several
        parts, gathers = max(1, S // W), max(1, W // S)
        held = Signal(32 * max(S, W))
        full, left = Signal(), Signal(range(parts))
        row, held_word, ends_command = Signal.like(self.words.p.row), Signal(16), Signal()
        sent = full & self.words.ready
        taken = kernel.o.valid & kernel.o.ready
        gathered = group[:_log2(gathers)] == gathers - 1 if gathers > 1 else 1
        words_left = words_per_head - word  # ≥ 1 where wanted
        m.d.comb += [
            kernel.o.ready.eq((prepared == 3) & (~full | (sent & (left == 0)))),
            self.tile.ready.eq(taken & row_ends & place.is_last(tile.row_vectors)),
            self.words.valid.eq(full), self.words.p.row.eq(row), self.words.p.word.eq(held_word),
            self.words.p.data.eq(held[:32 * W]), self.words.p.last.eq(ends_command & (left == 0)),
        ]
        with m.If(sent):
            m.d.sync += [held.eq(held >> 32 * W), held_word.eq(held_word + 1), left.eq(left - 1)]
            with m.If(left == 0):
                m.d.sync += full.eq(0)
        with m.If(taken):
            m.d.sync += [
                held.eq(Cat(held, values)[-len(held):]), full.eq(wanted & gathered),
                row.eq(tile.first_row + place.row), held_word.eq(head_word + word),
                left.eq(Mux(words_left < parts, words_left - 1, parts - 1)),
                ends_command.eq(tile.last_of_command & place.is_last(tile.row_vectors) & (words_left <= parts)),
                *(self.words.p[name].eq(tile[name]) for name in ("row_words", "statistics", "has_norm", "gain_bank")),
                group.eq(Mux(row_ends, 0, group + 1)),
            ]
            with m.If(row_ends):
                place.step(m, tile.row_vectors, tile.queries_per_kv)
                is_last_head = place.head == tile.queries_per_kv - 1
                m.d.sync += head_word.eq(Mux(is_last_head, first_word, head_word + words_per_head))
        with m.If(self.tile.ready):
            m.d.sync += prepared.eq(0)
        with m.Elif(self.tile.valid & (prepared != 3)):
            m.d.sync += [prepared.eq(prepared + 1), head_word.eq(first_word)]
        m.d.sync += self.done.eq(sent & self.words.p.last)
        return m


def _log2(value: int) -> int:
    return value.bit_length() - 1
