"""Quantised queries of the pass's rows, until the int8 array takes them."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes, tile_shapes
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for
from rtl.streams import shapes
from rtl.weight_buffer.uram_bank import UramBank, style_for


class QueryBuffer(wiring.Component):
    """Segments of 16 dims: segment w of row r (counted over its heads) lies at w·R + r.

    Parameters
    ----------
    params : ``rows``, ``max_inner``, ``max_heads``, ``max_head_dim``; holds kv_shapes.query_words segments.

    Streams and ports
    -----------------
    rows (in)     : R, stable during a pass.
    segments (in) : shapes.head_segment of kind QUERY; of a row: heads rising from 0, of each all segments, rising.
    scales (in)   : shapes.head_scale of kind QUERY, any order. Both always accepted.
    read_enable, read_word → read_data : one cycle later; not of a segment that is being written.
    scale_address → scale_data         : bfloat16 of (row, query head), one cycle later.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "rows": In(bits_for(params.rows)),
            "segments": In(stream.Signature(shapes.head_segment(params))),
            "scales": In(stream.Signature(shapes.head_scale(params))),
            "read_enable": In(1), "read_word": In(kv_shapes.WORD_BITS), "read_data": Out(8 * SEGMENT_BYTES),
            "scale_address": In(tile_shapes.query_address(params)), "scale_data": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        params, segment, scale = self.params, self.segments.p, self.scales.p
        m.d.comb += [self.segments.ready.eq(1), self.scales.ready.eq(1)]

        m.submodules.places = places = memory.Memory(shape=kv_shapes.WORD_BITS, depth=params.rows, init=[])
        place, update = places.read_port(domain="comb"), places.write_port()
        word = Signal(kv_shapes.WORD_BITS)
        m.d.comb += [
            place.addr.eq(segment.row),
            word.eq(Mux((segment.head == 0) & (segment.segment == 0), segment.row, place.data)),
            update.addr.eq(segment.row), update.data.eq(word + self.rows), update.en.eq(self.segments.valid),
        ]
        depth = kv_shapes.query_words(params)
        m.submodules.store = store = UramBank(8 * SEGMENT_BYTES, depth, style=style_for(depth))
        m.d.comb += [
            store.write_enable.eq(self.segments.valid), store.write_address.eq(word),
            store.write_data.eq(segment.data),
            store.read_enable.eq(self.read_enable), store.read_address.eq(self.read_word),
            self.read_data.eq(store.read_data),
        ]

        m.submodules.scale_store = scales = memory.Memory(shape=16, depth=params.rows * params.max_heads, init=[])
        scale_write, scale_read = scales.write_port(), scales.read_port()
        m.d.comb += [
            scale_write.en.eq(self.scales.valid), scale_write.addr.eq(scale.head * params.rows + scale.row),
            scale_write.data.eq(scale.scale),
            scale_read.addr.eq(self.scale_address.head * params.rows + self.scale_address.row),
            self.scale_data.eq(scale_read.data),
        ]
        return m
