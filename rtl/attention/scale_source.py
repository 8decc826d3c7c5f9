"""Scales of a tile's keys and values, from its header in memory and from the newest tokens."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import memory, stream, wiring
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
    scale_read (out) : kv_shapes.newest_scale_read.

    Timing: a position group a cycle; a tile's first one is offered two cycles after its last header beat. Two headers
    are kept.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "tiles": In(stream.Signature(kv_shapes.phase(params))),
            "header": In(stream.Signature(8 * params.beat_bytes)),
            "scales": Out(stream.Signature(tile_shapes.scale_group(params))),
            "scale_read": Out(kv_shapes.newest_scale_read(params)),
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

        # Emit.
        tile = Signal(phase_layout)
        group, row = Signal(range(TILE_POSITIONS // S + 1)), Signal(signed(kv_shapes.ROW_INDEX_BITS))
        m.d.comb += tile.eq(Mux(drain, kept[1], kept[0]))
        found = {}
        for part, (name, chosen) in enumerate((("key", number < beats), ("value", number >= beats))):
            m.submodules[f"{name}_headers"] = store = memory.Memory(
                shape=8 * params.beat_bytes, depth=SLOTS * beats, init=[])
            write, read = store.write_port(), store.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.header.valid & self.header.ready & chosen), write.data.eq(self.header.p),
                write.addr.eq(Mux(fill, beats, 0) + number - part * beats),
                read.addr.eq(Mux(drain, beats, 0) + (group >> 3)),
            ]
            found[name] = read.data.word_select(group[:3], 16 * S)
        past_here = Signal(range(TILE_POSITIONS + 1))
        position = group << log2
        emit, is_last = Signal(), Signal()
        m.d.comb += [
            past_here.eq(Mux(tile.past_positions > position, tile.past_positions - position, 0)),
            row.eq(tile.first_row + tile.difference + position),
            self.scale_read.enable.eq(emit & (past_here < S)),
            self.scale_read.row.eq(row), self.scale_read.kv_head.eq(tile.kv_head),
        ]
        m.d.comb += [
            emit.eq(filled.bit_select(drain, 1) & (~self.scales.valid | self.scales.ready)),
            is_last.eq(position + S >= tile.positions), finish.eq(emit & is_last),
        ]
        with m.If(self.scales.ready):
            m.d.sync += self.scales.valid.eq(0)
        with m.If(emit):
            m.d.sync += [self.scales.valid.eq(1), group.eq(group + 1)]
            for name, beat in found.items():
                newest = self.scale_read.scales[name]
                m.d.sync += self.scales.p[name].eq(
                    Cat(Mux(past_here > s, beat.word_select(s, 16), newest[s]) for s in range(S)))
            with m.If(is_last):
                m.d.sync += [group.eq(0), filled.bit_select(drain, 1).eq(0), drain.eq(~drain)]
        return m


