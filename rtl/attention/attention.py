"""Attention of a pass's rows over their KV caches, and the writing of their new keys and values."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out

from rtl.attention import kv_shapes
from rtl.attention.attention_feed import AttentionFeed, outer_ports, path_ports
from rtl.attention.softmax_path import SoftmaxPath
from rtl.contract.design_params import DesignParams
from rtl.streams import shapes


class Attention(wiring.Component):
    """``out[r, h] = Σ_t softmax_t(q[r, h]·k[t]·factor')·v[t]`` over the positions t that row r sees, KV heads shared.

    int8 codes with a bfloat16 scale a (token, head); tiles of 128 absolute-aligned positions, newest first;
    arithmetic as in hls_py/golden/attention. Positions below a group's ``past`` come from memory, the pass's own from
    on chip.

    Parameters
    ----------
    params  : the design; see NewestKv, QueryBuffer for what fits. The array needs ``operand_words`` words.
    kernels : as SoftmaxPath.

    Streams and ports
    -----------------
    pass_state (in)         : shapes.pass_state.
    heads, head_scales (in) : the pass's queries, keys and values of a layer. ATTEND may be given before they come: it
                              asks for its block lists and KV beats at once and begins with a KV head when that's there.
                              The kinds come in any order, each kind's heads rising, as DRAIN sends them: rows in order.
                              The next layer's may come when ATTEND and KV_WRITE are done, not before.
    command (in), done, busy (out) : ATTEND, one at a time. ``done`` pulses after the last word was taken.
    kv_write_command (in), kv_write_done, kv_write_busy (out) : KV_WRITE; the heads must be there. ``done`` pulses when
                              all beats were handed over; ``busy`` also until they are acknowledged (``kv_write_idle``).
    words (out)             : shapes.vector_word; query head h of row r from word h·round_up(head_dim, 8)/W on.
    kv_request, kv_data     : a StripedReader. list_request, list_data; kv_list_request, kv_list_data : LinearReaders.
    kv_write_request, kv_write_data, kv_write_idle : a StripedWriter.
    operand_write, beats, results : the DotEngine, attention's from ``command`` to ``done`` (tags: 14 bits).
    events (out)            : attention_feed.EVENTS.

    Timing: a tile takes the largest of its beats in memory (``memory_cycles``), its turns on the array
    (``array_cycles``) and the softmax path's interval, once the first of a command has come.
    """

    def __init__(self, params: DesignParams, kernels: Mapping[str, Any]):
        self.params = params
        self.operand_words = kv_shapes.operand_words(params)
        if self.operand_words > params.operand_words:
            raise ValueError(f"attention needs {self.operand_words} operand words, the contract gives the array "
                             f"{params.operand_words}")
        self._feed, self._path = AttentionFeed(params), SoftmaxPath(params, kernels)
        super().__init__({
            **outer_ports(params), "done": Out(1), "words": Out(stream.Signature(shapes.vector_word(params))),
        })

    def memory_cycles(self, past_positions: int, head_dim: int) -> int:
        """Beats that a tile with so many positions in memory takes from there."""
        segments = -(-head_dim // 16)
        if not past_positions:
            return 0
        return (kv_shapes.header_beats(self.params) + -(-past_positions // self.params.segments) * segments
                + -(-past_positions // 16) * segments * 16 // self.params.segments)

    def array_cycles(self, row_vectors: int, positions: int, head_dim: int) -> int:
        """Turns that a tile of so many positions takes on the array."""
        segments, lanes = -(-head_dim // 16), self.params.row_vectors
        return (-(-positions // self.params.segments) * segments * -(-row_vectors // lanes)
                + -(-positions // 16) * segments * 16 // self.params.segments * -(-2 * row_vectors // lanes))

    def elaborate(self, platform):
        m = Module()
        m.submodules.feed, m.submodules.softmax_path = feed, path = self._feed, self._path
        for name in outer_ports(self.params):
            if name in ("busy", "kv_write_done", "kv_write_busy", "events"):
                m.d.comb += getattr(self, name).eq(getattr(feed, name))
            elif name == "kv_write_idle":
                m.d.comb += feed.kv_write_idle.eq(self.kv_write_idle)
            else:
                wiring.connect(m, getattr(wiring.flipped(self), name), getattr(feed, name))
        for name in path_ports(self.params):
            if name in ("query_scale_address", "query_scale_data"):
                continue
            wiring.connect(m, getattr(feed, name), getattr(path, name))
        wiring.connect(m, wiring.flipped(self.pass_state), path.pass_state)
        wiring.connect(m, path.words, wiring.flipped(self.words))
        m.d.comb += [
            feed.query_scale_address.eq(path.query_scale_address), path.query_scale_data.eq(feed.query_scale_data),
            feed.path_done.eq(path.done), self.done.eq(path.done),
        ]
        return m
