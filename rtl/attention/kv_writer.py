"""Newest keys and values to their blocks in memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes
from rtl.attention.beat_walk import BeatWalk
from rtl.attention.scale_source import GROUPS_PER_BEAT
from rtl.attention.tile_address import TileAddress, tile_positions
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS
from rtl.streams import shapes


class KvWriter(wiring.Component):
    """Writes the bytes of positions past … past + rows − 1 of every (group, KV head), and no others.

    For each tile that holds some of them (at most two, newest first), with byte strobes: scales (keys' and values' of S
    positions a beat), K beats of the position groups, V beats of the blocks that hold any.

    Streams and ports
    -----------------
    group_heads (in)    : kv_shapes.group_head, ``blocks`` tiles each.
    block_numbers (in)  : one number a tile.
    layer_beat, head_beats, block_beats, geometry (in) : of the command, stable while it runs.
    read (out)          : kv_shapes.newest_read, begun in a cycle with ``read_grant``, which says that nobody else's is
                          under way; goes on by itself.
    scale_read (out)    : kv_shapes.newest_scale_read, done in a cycle with ``scale_grant``.
    write_request (out) : to the StripedWriter; ``write_data`` (out) its beats with strobes, in order.
    done (out)          : pulses when the last beat of the command's last (group, KV head) has been taken.

    Timing: READ_STAGES + 3 cycles a beat when nobody stalls.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "group_heads": In(stream.Signature(kv_shapes.group_head(params))),
            "block_numbers": In(stream.Signature(32)),
            "layer_beat": In(32), "head_beats": In(32), "block_beats": In(32),
            "geometry": In(kv_shapes.geometry(params)),
            "read": Out(kv_shapes.newest_read(params)), "read_grant": In(1),
            "scale_read": Out(kv_shapes.newest_scale_read(params)), "scale_grant": In(1),
            "write_request": Out(stream.Signature(shapes.STRIPED_REQUEST)),
            "write_data": Out(stream.Signature(shapes.striped_write_word(params))),
            "done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        params, geometry, S = self.params, self.geometry, self.params.segments
        log2, header = kv_shapes.segments_log2(params), kv_shapes.header_beats(params)
        head, tile, left = Signal(kv_shapes.group_head(params)), Signal(25), Signal(2)
        key_word, value_word = Signal(kv_shapes.WORD_BITS), Signal(kv_shapes.WORD_BITS)
        m.submodules.address = address = TileAddress()
        block, head_beat, wait = Signal(32), Signal(32), Signal(range(TileAddress.latency_cycles + 1))
        m.d.comb += [address.block.eq(block), address.block_beats.eq(self.block_beats), address.head_beat.eq(head_beat)]

        # Of the tile: first row that position 0 would have, first and last position to write.
        origin = Signal(data.StructLayout({"row": self.read.row.shape()}))
        low, high = Signal(kv_shapes.TILE_LOG2), Signal(kv_shapes.TILE_LOG2)
        where = tile_positions(head.past, head.rows, tile)
        value_offset, key_beats, value_beats = (Signal(shapes.BEATS_BITS, name=name)
                                                for name in ("value_offset", "key_beats", "value_beats"))
        key_skip, value_skip = Signal(shapes.BEATS_BITS), Signal(shapes.BEATS_BITS)
        groups = (high >> log2) - (low >> log2) + 1
        blocks = (high >> kv_shapes.BLOCK_LOG2) - (low >> kv_shapes.BLOCK_LOG2) + 1
        m.d.sync += [
            key_skip.eq((low >> log2) * geometry.segments), key_beats.eq(groups * geometry.segments),
            value_skip.eq((low >> kv_shapes.BLOCK_LOG2) * geometry.dim_groups),
            value_beats.eq(blocks * geometry.dim_groups),
            value_offset.eq(header + (geometry.segments << (kv_shapes.TILE_LOG2 - log2))),
        ]

        walk = BeatWalk("walk", params)
        walk.wire(m, geometry)
        word, request = self.write_data.p, self.write_request
        read_at = Signal(kv_shapes.READ_STAGES + 1)  # bit n: its read is at stage n
        begins = Signal()
        m.d.comb += begins.eq((self.read.enable | self.read.is_empty) & self.read_grant)
        m.d.sync += read_at.eq(begins | read_at << 1)
        with m.If(self.write_data.ready):
            m.d.sync += self.write_data.valid.eq(0)
        m.d.comb += [
            self.read.is_value.eq(walk.is_value), self.read.row.eq(walk.row), self.read.word.eq(walk.word),
            self.read.part.eq(walk.part), self.read.advance.eq(read_at[:-1]),
            self.scale_read.row.eq(walk.row), self.scale_read.kv_head.eq(head.kv_head),
        ]
        # The walk stays between the groups (or blocks) of the first and the last position, so that these have the ends.
        is_first_group, is_last_group = walk.outer == low >> log2, walk.outer == high >> log2
        is_first_block, is_last_block = (walk.outer == end >> kv_shapes.BLOCK_LOG2 for end in (low, high))
        inside = self._inside(is_first_group, low[:log2], is_last_group, high[:log2], S)
        inside_block = self._inside(is_first_block, low[:kv_shapes.BLOCK_LOG2], is_last_block,
                                    high[:kv_shapes.BLOCK_LOG2], SEGMENT_BYTES)
        scales_of_value = Signal()
        overlay = self.read.overlay
        with m.If(read_at[-2]):
            m.d.sync += overlay.eq(0)

        with m.FSM():
            with m.State("GROUP_HEAD"):
                m.d.comb += self.group_heads.ready.eq(1)
                now = self.group_heads.p
                m.d.sync += [
                    head.eq(now), tile.eq((now.past + now.rows - 1) >> kv_shapes.TILE_LOG2), left.eq(now.blocks),
                    key_word.eq(now.kv_head * geometry.key_head_words),
                    value_word.eq(now.kv_head * geometry.value_head_words),
                ]
                with m.If(self.group_heads.valid):
                    m.d.sync += head_beat.eq(Mux(now.kv_head == 0, self.layer_beat, head_beat + self.head_beats))
                    m.next = "TILE"
            with m.State("TILE"):
                m.d.comb += self.block_numbers.ready.eq(1)
                m.d.sync += [block.eq(self.block_numbers.p), wait.eq(0), low.eq(where["past_positions"]),
                             high.eq(where["positions"] - 1), origin.row.eq(head.first_row + where["difference"])]
                with m.If(self.block_numbers.valid):
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.sync += wait.eq(wait + 1)
                walk.start(m, 0, low >> log2, origin.row + (low >> log2 << log2), key_word)
                with m.If(wait == TileAddress.latency_cycles):
                    m.next = "SCALE_REQUEST"

            # Scales: a beat for the keys' and one for the values' of each position group.
            with m.State("SCALE_REQUEST"):
                part = Mux(scales_of_value, TILE_POSITIONS // (GROUPS_PER_BEAT * S), 0)
                m.d.comb += [request.valid.eq(1), request.p.beats.eq(1),
                             request.p.beat.eq(address.beat + part + walk.outer[3:])]
                with m.If(request.ready):
                    m.next = "SCALES"
            with m.State("SCALES"):  # laid over a read of zeros, which brings them to their place in the beat
                m.d.comb += [self.read.is_empty.eq(~self.write_data.valid & self.scale_grant),
                             self.scale_read.enable.eq(1), self.scale_read.is_value.eq(scales_of_value)]
                with m.If(begins):
                    m.next = "SCALE_WRITE"
            with m.State("SCALE_WRITE"):
                strobe = Cat(bit.replicate(2) for bit in inside)
                with m.If(read_at[0]):
                    m.d.sync += overlay.eq(self.scale_read.scales)
                with m.If(read_at[-1]):
                    m.d.sync += [
                        self.write_data.valid.eq(1), word.data.eq(self.read.data),
                        word.strobe.eq(Cat(Mux(walk.outer[:3] == n, strobe, 0) for n in range(GROUPS_PER_BEAT))),
                        scales_of_value.eq(~scales_of_value),
                    ]
                    m.next = "SCALE_REQUEST"
                    with m.If(scales_of_value):
                        m.d.sync += [walk.outer.eq(walk.outer + 1), walk.row.eq(walk.row + S)]
                        with m.If(is_last_group):
                            m.next = "KEY_REQUEST"

            with m.State("KEY_REQUEST"):
                walk.start(m, 0, low >> log2, origin.row + (low >> log2 << log2), key_word)
                m.d.comb += [request.valid.eq(1), request.p.beat.eq(address.beat + header + key_skip),
                             request.p.beats.eq(key_beats)]
                with m.If(request.ready):
                    m.next = "READ"
            with m.State("VALUE_REQUEST"):
                block_low = low >> kv_shapes.BLOCK_LOG2
                walk.start(m, 1, block_low, origin.row + (block_low << kv_shapes.BLOCK_LOG2), value_word)
                m.d.comb += [request.valid.eq(1), request.p.beat.eq(address.beat + value_offset + value_skip),
                             request.p.beats.eq(value_beats)]
                with m.If(request.ready):
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += self.read.enable.eq(~self.write_data.valid)
                with m.If(begins):
                    m.next = "WRITE"
            with m.State("WRITE"):
                by_segment = Cat(bit.replicate(SEGMENT_BYTES) for bit in inside)
                with m.If(read_at[-1]):
                    m.d.sync += [self.write_data.valid.eq(1), word.data.eq(self.read.data),
                                 word.strobe.eq(Mux(walk.is_value, Cat(inside_block).replicate(S), by_segment))]
                    walk.step(m)
                    m.next = "READ"
                    with m.If(walk.ends_inner & Mux(walk.is_value, is_last_block, is_last_group)):
                        m.next = "NEXT"
                        with m.If(~walk.is_value):
                            m.next = "VALUE_REQUEST"
            with m.State("NEXT"):
                m.d.sync += [tile.eq(tile - 1), left.eq(left - 1)]
                m.next = "TILE"
                with m.If(left == 1):
                    m.next = "GROUP_HEAD"
                    with m.If(head.last):
                        m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(~self.write_data.valid):
                    m.d.comb += self.done.eq(1)
                    m.next = "GROUP_HEAD"
        return m

    def _inside(self, is_first: Value, low: Value, is_last: Value, high: Value, count: int) -> list[Value]:
        """Which of a group's ``count`` positions are to be written, if the first group begins at ``low`` and the last
        one ends at ``high``."""
        ahead = [~is_first | (n >= low) for n in range(count - 1)] + [Const(1)]
        behind = [Const(1)] + [~is_last | (n <= high) for n in range(1, count)]
        return [a & b for a, b in zip(ahead, behind, strict=True)]
