"""The order of attention: tiles of every (group, KV head), newest first, and their requests to memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes
from rtl.attention.queue import Queue
from rtl.attention.tile_address import TileAddress, tile_positions
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES
from rtl.streams import shapes

PHASES_AHEAD = 32
"""Phases whose beats may be asked for before the array comes to them; how far really is the reader's reservation."""


class TileWalker(wiring.Component):
    """Phases K₀ K₁ K₂ V₀ K₃ V₁ … V_last over all tiles of all (group, KV head)s of a command: a tile's softmax has
    the time of two other phases at least.

    Tile n of a group and KV head (n = floor((past + rows − 1)/128) falling, one a block of the list) has positions
    128·n … of them those below ``past`` lie in memory; beats are asked for only where some position lies there:

        K: header and ceil(past positions/S) groups of D/16 beats, one request from the tile's first beat on
        V: ceil(past positions/16) blocks of D/S beats

    Streams and ports
    -----------------
    group_heads (in)       : kv_shapes.group_head.
    block_numbers (in)     : their lists, one number a tile, also where nothing of the tile is read.
    layer_beat, head_beats, block_beats, geometry (in) : of the command, stable while it runs.
    kv_request (out)       : to the StripedReader, in the order of the phases.
    phases (out)           : kv_shapes.phase, in order.
    loads (out)            : kv_shapes.load, one a (group, KV head).

    Timing: ``cycles_per_tile`` a tile when nobody stalls, so that short tiles are asked for faster than they are read.
    """

    cycles_per_tile = 10

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "group_heads": In(stream.Signature(kv_shapes.group_head(params))),
            "block_numbers": In(stream.Signature(32)),
            "layer_beat": In(32), "head_beats": In(32), "block_beats": In(32),
            "geometry": In(kv_shapes.geometry(params)),
            "kv_request": Out(stream.Signature(shapes.STRIPED_REQUEST)),
            "phases": Out(stream.Signature(kv_shapes.phase(params))),
            "loads": Out(stream.Signature(kv_shapes.load(params))),
        })

    def elaborate(self, platform):
        m = Module()
        params, phase_layout = self.params, kv_shapes.phase(self.params)
        log2, header = kv_shapes.segments_log2(params), kv_shapes.header_beats(params)
        queued = self.group_heads.p
        m.submodules.queue = queue = Queue(phase_layout, PHASES_AHEAD)
        m.submodules.address = address = TileAddress()
        wiring.connect(m, wiring.flipped(self.phases), queue.o)

        # The tile at hand and the two before it, the older of which has its V phase behind this one's K phase.
        now, newer, older = (Signal(phase_layout, name=name) for name in ("now", "newer", "older"))
        now_beat, newer_beat, older_beat = (Signal(32, name=f"{name}_beat") for name in ("now", "newer", "older"))
        has_newer, has_older, flushes = Signal(), Signal(), Signal()
        age = [older.eq(newer), older_beat.eq(newer_beat), has_older.eq(has_newer), has_newer.eq(0)]
        head, tile, left = Signal(kv_shapes.group_head(params)), Signal(25), Signal(32)
        head_beat, block, wait = Signal(32), Signal(32), Signal(range(TileAddress.latency_cycles + 1))
        key_beats, value_beats, value_offset = (Signal(shapes.BEATS_BITS, name=name)
                                                for name in ("key_beats", "value_beats", "value_offset"))
        m.d.comb += [
            address.block.eq(block), address.block_beats.eq(self.block_beats), address.head_beat.eq(head_beat),
            self.loads.p.first_row.eq(queued.first_row), self.loads.p.rows.eq(queued.rows),
            self.loads.p.kv_head.eq(queued.kv_head),
        ]
        past_groups = (now.past_positions + params.segments - 1) >> log2
        past_blocks = (older.past_positions + SEGMENT_BYTES - 1) >> kv_shapes.BLOCK_LOG2
        m.d.sync += [
            key_beats.eq(header + past_groups * self.geometry.segments),
            value_beats.eq(past_blocks * self.geometry.dim_groups),
            value_offset.eq(header + (self.geometry.segments << (kv_shapes.TILE_LOG2 - log2))),
        ]

        with m.FSM():
            with m.State("GROUP_HEAD"):
                m.d.comb += [self.loads.valid.eq(self.group_heads.valid), self.group_heads.ready.eq(self.loads.ready)]
                m.d.sync += [
                    head.eq(queued), tile.eq((queued.past + queued.rows - 1) >> kv_shapes.TILE_LOG2),
                    left.eq(queued.blocks), now.eq(0), now.first_row.eq(queued.first_row), now.rows.eq(queued.rows),
                    now.row_vectors.eq(queued.rows * self.geometry.queries_per_kv), now.kv_head.eq(queued.kv_head),
                    now.first_tile.eq(1),
                ]
                with m.If(self.group_heads.valid & self.loads.ready):
                    m.d.sync += head_beat.eq(Mux(queued.kv_head == 0, self.layer_beat, head_beat + self.head_beats))
                    m.next = "TILE"
            with m.State("TILE"):
                m.d.comb += self.block_numbers.ready.eq(1)
                where = tile_positions(head.past, head.rows, tile)
                is_last = left == 1
                m.d.sync += [
                    block.eq(self.block_numbers.p), wait.eq(0),
                    now.last_tile.eq(is_last), now.last_of_command.eq(is_last & head.last),
                    *(now[name].eq(value) for name, value in where.items()),
                ]
                with m.If(self.block_numbers.valid):
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.sync += [wait.eq(wait + 1), now_beat.eq(address.beat)]
                with m.If(wait == TileAddress.latency_cycles):
                    m.next = "KEY"
            with m.State("KEY"):
                self._give(m, queue, now, 0, now_beat, key_beats)
                with m.If(queue.i.valid & queue.i.ready):
                    m.next = "VALUE"
                    with m.If(~has_older):
                        m.next = "ADVANCE"
            with m.State("VALUE"):
                self._give(m, queue, older, 1, older_beat + value_offset, value_beats)
                with m.If(queue.i.valid & queue.i.ready):
                    m.next = "ADVANCE"
                    with m.If(flushes):
                        m.d.sync += age
                        m.next = "FLUSH"
            with m.State("ADVANCE"):
                m.d.sync += [*age, newer.eq(now), newer_beat.eq(now_beat), has_newer.eq(1), tile.eq(tile - 1),
                             left.eq(left - 1), now.first_tile.eq(0), flushes.eq(now.last_of_command)]
                m.next = "TILE"
                with m.If(now.last_tile):
                    m.next = "GROUP_HEAD"
                with m.If(now.last_of_command):
                    m.next = "FLUSH"
            with m.State("FLUSH"):  # also gives value_beats the cycle by which it follows ``older``
                with m.If(has_older):
                    m.next = "VALUE"
                with m.Elif(has_newer):
                    m.d.sync += age
                with m.Else():
                    m.next = "GROUP_HEAD"
        return m

    def _give(self, m: Module, queue: Queue, tile: Signal, is_value: int, beat, beats) -> None:
        """Ask for the phase's beats (if any lie in memory), then hand the phase over; each at most once."""
        asked = Signal(name=f"asked_{is_value}")
        needed = (tile.past_positions != 0) & ~asked
        m.d.comb += [
            self.kv_request.valid.eq(needed), self.kv_request.p.beat.eq(beat), self.kv_request.p.beats.eq(beats),
            queue.i.valid.eq(~needed), queue.i.p.eq(tile), queue.i.p.is_value.eq(is_value),
        ]
        with m.If(self.kv_request.valid & self.kv_request.ready):
            m.d.sync += asked.eq(1)
        with m.If(queue.i.valid & queue.i.ready):
            m.d.sync += asked.eq(0)

