"""What each beat of a phase is: operands, tags, and where its bytes come from."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes
from rtl.attention.beat_walk import BeatWalk
from rtl.attention.queue import Queue
from rtl.attention.tile_shapes import BLOCK_BITS
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for
from rtl.streams import shapes

QUEUE_DEPTH = 2
TURNS_KEPT = 4
"""A power of two above the K phases that come before a tile's V phase, its own included."""
DIM_GROUP_BITS = 9
KEY_TAG = data.StructLayout({"is_value": 1, "group": 8})
VALUE_TAG = data.StructLayout({"is_value": 1, "last": 1, "block": BLOCK_BITS, "dim_group": DIM_GROUP_BITS})
"""Tags of K and V beats: at most 14 bits, the lowest of which tells them apart."""


def beat_item(params: DesignParams) -> data.StructLayout:
    """A header beat, or a beat for the array; its first ``past`` positions lie in memory, the others on chip."""
    return data.StructLayout({
        "is_header": 1, "is_value": 1, "past": bits_for(SEGMENT_BYTES),
        "row": signed(kv_shapes.ROW_INDEX_BITS), "word": kv_shapes.WORD_BITS, "part": 4, "newest": 1,
        "operand": shapes.OPERAND_ADDRESS_BITS, "turns": kv_shapes.TURN_BITS,
        "turn_stride": shapes.OPERAND_ADDRESS_BITS, "first": 1, "last": 1, "tag": shapes.DOT_TAG_BITS,
        "ends_queries": 1, "ends_weights": 1,
    })


class PhaseSequencer(wiring.Component):
    """Expands phases into beat_items.

    K phase: its header's beats if memory holds any position of it; then position group g = 0 …, segment d = 0 …
    D/16 − 1: operand word query slot + d, turns D/16 apart, one sum a group. V phase: block b = 0 …, dim group d = 0 …
    D/S − 1: operand word weight slot + b, turns WEIGHT_STRIDE apart, one sum a beat. Slots alternate.

    Streams and ports
    -----------------
    phases (in)        : kv_shapes.phase.
    geometry (in)      : stable while a command runs.
    loaded (in)        : one token a (group, KV head), taken by its first K phase.
    weights_ready (in) : a token for each V phase.
    tiles, scale_tiles (out) : the K phases, each when it starts.
    value_phases (out) : turns − 1 of each V phase, when it starts.
    items (out)        : beat_item.
    waits (out)        : why the next phase doesn't start: its queries, its weights, room in the softmax path.

    Timing: an item a cycle, and one cycle between phases.
    """

    overhead_cycles = 1

    def __init__(self, params: DesignParams):
        self.params = params
        phase = kv_shapes.phase(params)
        super().__init__({
            "phases": In(stream.Signature(phase)), "geometry": In(kv_shapes.geometry(params)),
            "loaded": In(stream.Signature(kv_shapes.LOADED)), "weights_ready": In(stream.Signature(1)),
            "tiles": Out(stream.Signature(phase)), "scale_tiles": Out(stream.Signature(phase)),
            "value_phases": Out(stream.Signature(kv_shapes.TURN_BITS)),
            "items": Out(stream.Signature(beat_item(params))), "waits": Out(3),
        })

    def elaborate(self, platform):
        m = Module()
        params, geometry = self.params, self.geometry
        log2 = kv_shapes.segments_log2(params)

        # The next phase is looked at while the one before runs.
        next_phase, has_next, start = Signal(kv_shapes.phase(params)), Signal(), Signal()
        head_word, end = Signal(kv_shapes.WORD_BITS), Signal(8)
        coming = self.phases.p
        m.d.comb += self.phases.ready.eq(~has_next | start)
        with m.If(self.phases.ready):
            m.d.sync += [
                has_next.eq(self.phases.valid), next_phase.eq(coming),
                head_word.eq(coming.kv_head * Mux(coming.is_value, geometry.value_head_words, geometry.key_head_words)),
                end.eq((coming.positions - 1) >> Mux(coming.is_value, kv_shapes.BLOCK_LOG2, log2)),
            ]
        tiles, scale_tiles, value_phases = (self._queue(m, name) for name in ("tiles", "scale_tiles", "value_phases"))
        key_start, value_start, is_running, ends_phase = Signal(), Signal(), Signal(), Signal()
        is_free = ~is_running | (ends_phase & self.items.ready)
        lacks_queries, lacks_weights = Signal(), Signal()
        m.d.comb += [
            key_start.eq(is_free & has_next & ~next_phase.is_value & tiles.i.ready & scale_tiles.i.ready
                         & (~next_phase.first_tile | self.loaded.valid)),
            value_start.eq(is_free & has_next & next_phase.is_value & value_phases.i.ready & self.weights_ready.valid),
            start.eq(key_start | value_start),
            lacks_queries.eq(~next_phase.is_value & next_phase.first_tile & ~self.loaded.valid),
            lacks_weights.eq(next_phase.is_value & ~self.weights_ready.valid),
            self.waits.eq(Mux(is_free & has_next & ~start,
                              Cat(lacks_queries, lacks_weights, ~lacks_queries & ~lacks_weights), 0)),
            tiles.i.valid.eq(key_start), tiles.i.p.eq(next_phase),
            scale_tiles.i.valid.eq(key_start), scale_tiles.i.p.eq(next_phase),
            value_phases.i.valid.eq(value_start),
            self.loaded.ready.eq(key_start & next_phase.first_tile), self.weights_ready.ready.eq(value_start),
        ]

        # Turns: a tile's V phase comes behind the K phases of the next two, so those of so many tiles are kept.
        loaded, kept_turns = Signal(kv_shapes.LOADED), Signal(data.ArrayLayout(kv_shapes.TURN_BITS, TURNS_KEPT))
        key_place, value_place = Signal(range(TURNS_KEPT)), Signal(range(TURNS_KEPT))
        query_slot, weight_slot = Signal(init=1), Signal()
        now_loaded = Mux(next_phase.first_tile, self.loaded.p, loaded)
        now_slot = query_slot ^ next_phase.first_tile
        value_turns = kept_turns[value_place]
        m.d.comb += value_phases.i.p.eq(value_turns)

        walk = BeatWalk("walk", params)
        walk.wire(m, geometry)
        item, phase = self.items.p, Signal(kv_shapes.phase(params))
        base, turns, end_now = Signal(shapes.OPERAND_ADDRESS_BITS), Signal(kv_shapes.TURN_BITS), Signal(8)
        headers, past = Signal(range(kv_shapes.header_beats(params) + 1)), Signal(kv_shapes.POSITION_BITS)
        with m.If(start):
            walk.start(m, next_phase.is_value, 0, next_phase.first_row + next_phase.difference, head_word)
            m.d.sync += [
                is_running.eq(1), phase.eq(next_phase), end_now.eq(end), past.eq(next_phase.past_positions),
                headers.eq(Mux(key_start & (next_phase.past_positions != 0), kv_shapes.header_beats(params), 0)),
            ]
        with m.Elif(ends_phase & self.items.ready):
            m.d.sync += is_running.eq(0)
        with m.If(key_start):
            m.d.sync += [
                query_slot.eq(now_slot), key_place.eq(key_place + 1), loaded.eq(now_loaded),
                kept_turns[key_place].eq(kv_shapes.LOADED(now_loaded).value_turns),
                base.eq(Mux(now_slot, kv_shapes.query_slot_words(params), 0)),
                turns.eq(kv_shapes.LOADED(now_loaded).turns),
            ]
        with m.If(value_start):
            m.d.sync += [
                weight_slot.eq(~weight_slot), value_place.eq(value_place + 1), turns.eq(value_turns),
                base.eq(kv_shapes.weight_base(params) + Mux(weight_slot, kv_shapes.weight_slot_words(params), 0)),
            ]

        is_header = headers != 0
        is_last_beat = walk.ends_inner & (walk.outer == end_now)
        key_tag, value_tag = Signal(KEY_TAG), Signal(VALUE_TAG)
        m.d.comb += [
            ends_phase.eq(is_running & ~is_header & is_last_beat),
            key_tag.group.eq(walk.outer),
            value_tag.is_value.eq(1), value_tag.last.eq(is_last_beat), value_tag.block.eq(walk.outer),
            value_tag.dim_group.eq(walk.inner),
            self.items.valid.eq(is_running), item.is_header.eq(is_header), item.is_value.eq(phase.is_value),
            item.past.eq(Mux(past > walk.positions, walk.positions, past)),
            item.newest.eq(~is_header & (past < walk.positions)),
            item.row.eq(walk.row), item.word.eq(walk.word), item.part.eq(walk.part), item.turns.eq(turns),
            item.ends_queries.eq(ends_phase & ~phase.is_value & phase.last_tile),
            item.ends_weights.eq(ends_phase & phase.is_value),
        ]
        with m.If(phase.is_value):
            m.d.comb += [item.operand.eq(base + walk.outer), item.turn_stride.eq(kv_shapes.WEIGHT_STRIDE),
                         item.first.eq(1), item.last.eq(1), item.tag.eq(value_tag)]
        with m.Else():
            m.d.comb += [item.operand.eq(base + walk.inner), item.turn_stride.eq(geometry.segments),
                         item.first.eq(walk.inner == 0), item.last.eq(walk.ends_inner), item.tag.eq(key_tag)]
        with m.If(is_running & self.items.ready & ~start):
            with m.If(is_header):
                m.d.sync += headers.eq(headers - 1)
            with m.Else():
                walk.step(m)
                with m.If(walk.ends_inner):
                    m.d.sync += past.eq(Mux(past > walk.positions, past - walk.positions, 0))
        return m

    def _queue(self, m: Module, name: str) -> Queue:
        port = getattr(self, name)
        m.submodules[f"{name}_queue"] = queue = Queue(port.p.shape(), QUEUE_DEPTH)
        wiring.connect(m, wiring.flipped(port), queue.o)
        return queue
