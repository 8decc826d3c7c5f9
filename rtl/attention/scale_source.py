"""Scales of a tile's keys and values, from its header in memory and from the newest tokens."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes, tile_shapes
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import TILE_POSITIONS

GROUPS_PER_BEAT = 8
"""A beat of 16·S bytes holds 8·S scales of 2 bytes: those of 8 position groups."""
SLOTS = 2


class ScaleSource(wiring.Component):
    """For each tile its scales, S positions at a time: position t from the header if t < past_positions, else newest.

    Streams and ports
    -----------------
    tiles (in)       : kv_shapes.phase of a K phase, before its header.
    header (in)      : header beats of the tiles with past_positions > 0, keys' then values' scales.
    scales (out)     : tile_shapes.scale_group, ceil(positions/S) a tile, rising. Positions beyond the tile's: anything.
    scale_read (out) : kv_shapes.newest_scale_read; ``scale_held``: what was read in some cycle before is needed.

    Timing: a position group every two cycles; a tile's first one is offered four cycles after its last header beat.
    Two headers are kept.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "tiles": In(stream.Signature(kv_shapes.phase(params))),
            "header": In(stream.Signature(8 * params.beat_bytes)),
            "scales": Out(stream.Signature(tile_shapes.scale_group(params))),
            "scale_read": Out(kv_shapes.newest_scale_read(params)), "scale_held": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        params, S = self.params, self.params.segments
        log2 = kv_shapes.segments_log2(params)
        beats = TILE_POSITIONS // (GROUPS_PER_BEAT * S)
        phase_layout = kv_shapes.phase(params)

        # Collect: a tile's header fills the next slot; a tile without one takes a slot all the same.
        kept = [Signal(phase_layout, name=f"kept_{n}") for n in range(SLOTS)]
        fill, drain, used = Signal(), Signal(), Signal(range(SLOTS + 1))
        filled, collecting, number = Signal(SLOTS), Signal(), Signal(range(2 * beats))
        accept, finish = Signal(), Signal()
        m.d.comb += [
            self.tiles.ready.eq(~collecting & (used != SLOTS)), accept.eq(self.tiles.valid & self.tiles.ready),
            self.header.ready.eq(collecting),
        ]
        m.d.sync += used.eq(used + accept - finish)
        with m.If(accept):
            for n in range(SLOTS):
                with m.If(fill == n):
                    m.d.sync += [kept[n].eq(self.tiles.p), filled[n].eq(self.tiles.p.past_positions == 0)]
            m.d.sync += [collecting.eq(self.tiles.p.past_positions != 0), number.eq(0)]
            with m.If(self.tiles.p.past_positions == 0):
                m.d.sync += fill.eq(~fill)
        with m.If(self.header.valid & self.header.ready):
            m.d.sync += number.eq(number + 1)
            with m.If(number == 2 * beats - 1):
                m.d.sync += [collecting.eq(0), filled.bit_select(fill, 1).eq(1), fill.eq(~fill)]

        # Ask: of a position group for the keys' scales, then the values'.
        tile = Signal(phase_layout)
        group, is_value, past_here = Signal(range(TILE_POSITIONS // S + 1)), Signal(), Signal(range(S + 1))
        asks, is_last, row = Signal(), Signal(), Signal(signed(kv_shapes.ROW_INDEX_BITS))
        position = group << log2
        m.d.comb += [
            tile.eq(Mux(drain, kept[1], kept[0])), row.eq(tile.first_row + tile.difference + position),
            is_last.eq(position + S >= tile.positions),
            self.scale_read.enable.eq(asks & (past_here != S)), self.scale_read.is_value.eq(is_value),
            self.scale_read.row.eq(row), self.scale_read.kv_head.eq(tile.kv_head),
        ]
        with m.If(tile.past_positions >= position + S):
            m.d.comb += past_here.eq(S)
        with m.Elif(tile.past_positions > position):
            m.d.comb += past_here.eq(tile.past_positions[:log2])
        with m.If(asks):
            m.d.sync += is_value.eq(~is_value)
            with m.If(is_value):
                m.d.sync += group.eq(group + 1)
                with m.If(is_last):
                    m.d.sync += [group.eq(0), filled.bit_select(drain, 1).eq(0), drain.eq(~drain)]

        # Merge and emit, from a cycle later on.
        asked = Signal(data.StructLayout({
            "valid": 1, "is_value": 1, "is_last": 1, "past_here": past_here.shape(), "slot": 1, "group": group.shape(),
        }))
        m.submodules.headers = store = memory.Memory(shape=8 * params.beat_bytes, depth=SLOTS * 2 * beats, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        beat_log2, emit, is_done = beats.bit_length() - 1, Signal(), Signal()
        keys, found = Signal(16 * S), Signal(16 * S)
        of_group = read.data.word_select(asked.group[:3], 16 * S)
        m.d.comb += [
            write.en.eq(self.header.valid & self.header.ready), write.data.eq(self.header.p),
            write.addr.eq(Cat(number, fill)),
            read.addr.eq(Cat(asked.group[3:3 + beat_log2], asked.is_value, asked.slot)),
            found.eq(Cat(Mux(asked.past_here > s, of_group.word_select(s, 16), self.scale_read.scales[s])
                         for s in range(S))),
            is_done.eq(asked.valid & (~asked.is_value | ~self.scales.valid | self.scales.ready)),
            asks.eq(filled.bit_select(drain, 1) & (~asked.valid | is_done)),
            emit.eq(is_done & asked.is_value), finish.eq(emit & asked.is_last),
            self.scale_held.eq(asked.valid & (asked.past_here != S)),
        ]
        with m.If(asks):
            m.d.sync += [asked.is_value.eq(is_value), asked.is_last.eq(is_last), asked.past_here.eq(past_here),
                         asked.slot.eq(drain), asked.group.eq(group)]
        with m.If(asks | is_done):
            m.d.sync += asked.valid.eq(asks)
        with m.If(self.scales.ready):
            m.d.sync += self.scales.valid.eq(0)
        with m.If(is_done):
            m.d.sync += keys.eq(found)
        with m.If(emit):
            m.d.sync += [self.scales.valid.eq(1), self.scales.p.key.eq(keys), self.scales.p.value.eq(found)]
        return m
