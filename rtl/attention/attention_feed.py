"""All of attention but the softmax: heads in, beats for the int8 array out, its sums to the softmax path."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes, tile_shapes
from rtl.attention.beat_source import BeatSource
from rtl.attention.block_list import BlockList
from rtl.attention.kv_writer import KvWriter
from rtl.attention.newest_kv import NewestKv
from rtl.attention.operand_loader import OperandLoader
from rtl.attention.phase_sequencer import KEY_TAG, VALUE_TAG
from rtl.attention.query_buffer import QueryBuffer
from rtl.attention.scale_source import ScaleSource
from rtl.attention.tile_walker import TileWalker
from rtl.contract.command_words import ATTEND, KV_WRITE
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES
from rtl.streams import shapes

EVENTS = data.StructLayout({"busy": 1, "waits_for_memory": 1, "kv_writer_busy": 1, "waits_for_queries": 1,
                            "waits_for_weights": 1, "waits_for_path": 1})
"""What counters count, and simulators look at, a bit a cycle."""

GEOMETRY_CYCLES = 3
HEADS_BITS = 9


def path_ports(params: DesignParams) -> dict[str, wiring.Member]:
    """The softmax path's side, as the feed sees it; see docs/attention.md."""
    return {
        "tile": Out(stream.Signature(tile_shapes.tile(params))),
        "scales": Out(stream.Signature(tile_shapes.scale_group(params))),
        "scores": Out(stream.Signature(tile_shapes.score_sums(params))),
        "query_scale_address": In(tile_shapes.query_address(params)), "query_scale_data": Out(16),
        "weights": In(stream.Signature(tile_shapes.weight_write(params))),
        "weights_ready": In(stream.Signature(1)), "weights_free": Out(stream.Signature(1)),
        "value_sums": Out(stream.Signature(tile_shapes.value_sums(params))),
    }


def outer_ports(params: DesignParams) -> dict[str, wiring.Member]:
    """Ports of the whole unit that the softmax path has no part in."""
    beat = 8 * params.beat_bytes
    return {
        "pass_state": In(shapes.pass_state(params)),
        "command": In(stream.Signature(shapes.COMMAND_BITS)), "busy": Out(1),
        "kv_write_command": In(stream.Signature(shapes.COMMAND_BITS)), "kv_write_done": Out(1), "kv_write_busy": Out(1),
        "heads": In(stream.Signature(shapes.head_segment(params))),
        "head_scales": In(stream.Signature(shapes.head_scale(params))),
        "kv_request": Out(stream.Signature(shapes.STRIPED_REQUEST)), "kv_data": In(stream.Signature(beat)),
        "kv_write_request": Out(stream.Signature(shapes.STRIPED_REQUEST)),
        "kv_write_data": Out(stream.Signature(shapes.striped_write_word(params))), "kv_write_idle": In(1),
        "list_request": Out(stream.Signature(shapes.linear_request(params))), "list_data": In(stream.Signature(32)),
        "kv_list_request": Out(stream.Signature(shapes.linear_request(params))),
        "kv_list_data": In(stream.Signature(32)),
        "operand_write": Out(stream.Signature(shapes.operand_write(params))),
        "beats": Out(stream.Signature(shapes.dot_beat(params))),
        "results": In(stream.Signature(shapes.dot_result(params))),
        "events": Out(EVENTS),
    }


class AttentionFeed(wiring.Component):
    """Query and newest-KV buffers, block lists, walker, beats, scales and the KV writer.

    Ports: ``outer_ports`` (see Attention), ``path_ports`` (see docs/attention.md), and ``path_done`` (in), which
    ends the ATTEND command.
    """

    def __init__(self, params: DesignParams):
        if kv_shapes.operand_words(params) > 1 << shapes.OPERAND_ADDRESS_BITS:
            raise ValueError(
                f"attention needs {kv_shapes.operand_words(params)} operand words "
                f"(max_row_vectors {params.max_row_vectors}, row_vectors {params.row_vectors}, "
                f"max_head_dim {params.max_head_dim}); at most {1 << shapes.OPERAND_ADDRESS_BITS} can be addressed")
        self.params = params
        super().__init__({**outer_ports(params), **path_ports(params), "path_done": In(1)})

    def elaborate(self, platform):
        m = Module()
        params = self.params
        m.submodules.queries = queries = QueryBuffer(params)
        m.submodules.newest = newest = NewestKv(params)
        m.submodules.lists = lists = BlockList(params, written_only=False)
        m.submodules.walker = walker = TileWalker(params)
        m.submodules.loader = loader = OperandLoader(params)
        m.submodules.beat_source = source = BeatSource(params)
        m.submodules.scale_source = scales = ScaleSource(params)
        self._heads(m, queries, newest)

        geometry, command, heads_there, is_busy = self._command(m, lists, queries, newest, loader.kv_head)
        state = wiring.flipped(self)
        wiring.connect(m, state.pass_state, lists.pass_state)
        wiring.connect(m, state.list_request, lists.list_request)
        wiring.connect(m, lists.group_heads, walker.group_heads)
        wiring.connect(m, state.list_data, walker.block_numbers)
        wiring.connect(m, state.kv_request, walker.kv_request)
        wiring.connect(m, walker.phases, source.phases)
        wiring.connect(m, walker.loads, loader.loads)
        wiring.connect(m, loader.loaded, source.loaded)
        wiring.connect(m, state.kv_data, source.kv_data)
        wiring.connect(m, source.scale_tiles, scales.tiles)
        wiring.connect(m, source.header, scales.header)
        wiring.connect(m, scales.scales, state.scales)
        wiring.connect(m, source.weights_free, state.weights_free)
        wiring.connect(m, source.beats, state.beats)
        m.d.comb += [
            walker.layer_beat.eq(command.layer_beat), walker.head_beats.eq(command.head_beats),
            walker.block_beats.eq(command.block_beats),
            walker.geometry.eq(geometry), loader.geometry.eq(geometry), source.geometry.eq(geometry),
            loader.enable.eq(heads_there), loader.release.eq(source.release), loader.query_data.eq(queries.read_data),
            queries.read_enable.eq(loader.query_enable), queries.read_word.eq(loader.query_word),
            queries.scale_address.eq(self.query_scale_address), self.query_scale_data.eq(queries.scale_data),
            self.events.busy.eq(is_busy), self.events.waits_for_memory.eq(source.waits_for_memory),
            *(self.events[f"waits_for_{what}"].eq(source.phase_waits[n])
              for n, what in enumerate(("queries", "weights", "path"))),
        ]
        self._tile(m, source, command)
        self._operand_writes(m, loader, source)
        self._results(m, source)
        self._write_back(m, newest, source, scales, lists)
        return m

    def _heads(self, m: Module, queries: QueryBuffer, newest: NewestKv) -> None:
        """Route segments and scales by kind."""
        for port, to_queries, to_newest in ((self.heads, queries.segments, newest.segments),
                                            (self.head_scales, queries.scales, newest.scales)):
            is_query = port.p.kind == shapes.HeadKind.QUERY
            m.d.comb += [
                to_queries.p.eq(port.p), to_queries.valid.eq(port.valid & is_query),
                to_newest.p.eq(port.p), to_newest.valid.eq(port.valid & ~is_query),
                port.ready.eq(Mux(is_query, to_queries.ready, to_newest.ready)),
            ]
        m.d.comb += [queries.rows.eq(self.pass_state.rows), newest.rows.eq(self.pass_state.rows)]

    def _command(self, m: Module, lists: BlockList, queries: QueryBuffer, newest: NewestKv, kv_head: Value
                 ) -> tuple[Value, Value, Value, Value]:
        """One ATTEND at a time: geometry, fields, whether all of ``kv_head`` has come, whether one runs.

        Rows come in order, so that what has come of the last one says what has come of all.
        """
        command, is_busy, wait = Signal(shapes.command_layout(ATTEND)), Signal(), Signal(range(GEOMETRY_CYCLES + 1))
        rows = self.pass_state.rows
        geometry = _geometry(m, "attend", self.params, command.head_dim, rows, command.queries_per_kv)
        heads, segments = Signal(HEADS_BITS), Signal(HEADS_BITS + kv_shapes.SEGMENTS_BITS)
        query_heads, query_segments = Signal(2 * HEADS_BITS), Signal(2 * HEADS_BITS + kv_shapes.SEGMENTS_BITS)
        m.d.comb += heads.eq(kv_head + 1)
        m.d.sync += [
            segments.eq(heads * geometry.segments),
            query_heads.eq(heads * geometry.queries_per_kv), query_segments.eq(query_heads * geometry.segments),
        ]
        counts: list[Signal] = []
        there: list[Value] = []
        for kind, to_kind in ((shapes.HeadKind.QUERY, queries.segments), (shapes.HeadKind.KEY, newest.segments),
                              (shapes.HeadKind.VALUE, newest.segments)):
            of_queries = kind is shapes.HeadKind.QUERY
            for port, needed in ((to_kind, query_segments if of_queries else segments),
                                 (self.head_scales, query_heads if of_queries else heads)):
                count = Signal.like(needed, name=f"{kind.name.lower()}_{len(counts)}")
                with m.If(port.valid & port.ready & (port.p.kind == kind) & (port.p.row == rows - 1)):
                    m.d.sync += count.eq(count + 1)
                counts.append(count)
                there.append(count >= needed)
        heads_there = Signal()
        m.d.comb += heads_there.eq(Cat(there).all())

        m.d.comb += [self.busy.eq(is_busy), lists.start.p.layer.eq(command.layer),
                     lists.start.p.kv_heads.eq(command.kv_heads)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.command.ready.eq(1)
                m.d.sync += [command.eq(self.command.p), wait.eq(0)]
                with m.If(self.command.valid):
                    m.d.sync += is_busy.eq(1)
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == GEOMETRY_CYCLES - 1):
                    m.next = "START"
            with m.State("START"):
                m.d.comb += lists.start.valid.eq(1)
                with m.If(lists.start.ready):
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(self.path_done):
                    m.d.sync += [is_busy.eq(0), *(count.eq(0) for count in counts)]
                    m.next = "IDLE"
        return geometry, command, heads_there, is_busy

    def _tile(self, m: Module, source: BeatSource, command: Value) -> None:
        """Announce a K phase's tile to the softmax path."""
        phase, tile = source.tiles.p, self.tile.p
        log2 = kv_shapes.segments_log2(self.params)
        m.d.comb += [
            self.tile.valid.eq(source.tiles.valid), source.tiles.ready.eq(self.tile.ready),
            *(tile[name].eq(phase[name]) for name in (
                "row_vectors", "first_row", "rows", "kv_head", "difference",
                "first_tile", "last_tile", "last_of_command")),
            *(tile[name].eq(command[name]) for name in (
                "queries_per_kv", "head_dim", "factor", "row_words", "has_norm", "gain_bank")),
            tile.groups_of_positions.eq((phase.positions + self.params.segments - 1) >> log2),
            tile.statistics.eq(1),
        ]

    def _operand_writes(self, m: Module, loader: OperandLoader, source: BeatSource) -> None:
        """Weights go first; queries take the cycles between. Weight slots alternate with the ready tokens.

        A token may come while the next tile's first weights do, so it counts from the cycle in which it is offered.
        """
        params, weight, write = self.params, self.weights.p, self.operand_write
        slot, tokens = Signal(), Signal(2)
        given, taken = self.weights_ready.valid & self.weights_ready.ready, Signal()
        m.d.comb += [
            self.weights.ready.eq(1), self.weights_ready.ready.eq(1),
            source.weights_ready.valid.eq(tokens != 0), taken.eq((tokens != 0) & source.weights_ready.ready),
            write.valid.eq(self.weights.valid | loader.operand_write.valid),
            loader.operand_write.ready.eq(~self.weights.valid & write.ready),
            write.p.eq(loader.operand_write.p),
        ]
        m.d.sync += [tokens.eq(tokens + given - taken), slot.eq(slot ^ given)]
        with m.If(self.weights.valid):
            base = kv_shapes.weight_base(params) + Mux(slot ^ given, kv_shapes.weight_slot_words(params), 0)
            m.d.comb += [
                write.p.address.eq(base + weight.turn * kv_shapes.WEIGHT_STRIDE + weight.block),
                *(write.p[name].eq(weight[name]) for name in ("lane", "mask", "data")),
            ]

    def _results(self, m: Module, source: BeatSource) -> None:
        """The array's sums to where their tag says."""
        found = self.results.p
        key, value = data.View(KEY_TAG, found.tag[:KEY_TAG.size]), data.View(VALUE_TAG, found.tag[:VALUE_TAG.size])
        turns, sums = source.value_phases, self.value_sums
        m.d.comb += [
            self.scores.valid.eq(self.results.valid & ~key.is_value), sums.valid.eq(self.results.valid & key.is_value),
            self.results.ready.eq(Mux(key.is_value, sums.ready, self.scores.ready)),
            self.scores.p.turn.eq(found.turn), self.scores.p.group.eq(key.group), self.scores.p.dots.eq(found.dots),
            sums.p.turn.eq(found.turn), sums.p.block.eq(value.block), sums.p.dim_group.eq(value.dim_group),
            sums.p.last.eq(value.last & (found.turn == turns.p)), sums.p.dots.eq(found.dots),
            turns.ready.eq(sums.valid & sums.ready & sums.p.last),
        ]

    def _group_fields(self, m: Module, lists: BlockList, write_lists: BlockList) -> None:
        """One multiplexer for both block lists, ATTEND's first."""
        state, group, fields = self.pass_state, Signal.like(lists.group), lists.fields
        m.d.comb += [
            group.eq(Mux(lists.group_enable, lists.group, write_lists.group)),
            # picked from all bits together, which takes fewer LUTs than a case for each group
            *(fields[name].eq(Value.cast(getattr(state, of)).word_select(group, len(fields[name])))
              for name, of in zip(("first_row", "rows", "past", "list_address"),
                                  ("first_row", "group_rows", "past", "list_address"), strict=True)),
            write_lists.fields.eq(fields), lists.group_grant.eq(1), write_lists.group_grant.eq(~lists.group_enable),
        ]

    def _write_back(self, m: Module, newest: NewestKv, source: BeatSource, scales: ScaleSource,
                    attend_lists: BlockList) -> None:
        """The KV_WRITE command; the writer reads the newest K and V in cycles in which attention doesn't."""
        params, ports = self.params, wiring.flipped(self)
        m.submodules.write_lists = lists = BlockList(params, written_only=True)
        self._group_fields(m, attend_lists, lists)
        m.submodules.writer = writer = KvWriter(params)
        command, is_busy, wait = Signal(shapes.command_layout(KV_WRITE)), Signal(), Signal(range(GEOMETRY_CYCLES))
        geometry = _geometry(m, "write", params, command.head_dim, self.pass_state.rows, 1)
        wiring.connect(m, ports.pass_state, lists.pass_state)
        wiring.connect(m, ports.kv_list_request, lists.list_request)
        wiring.connect(m, lists.group_heads, writer.group_heads)
        wiring.connect(m, ports.kv_list_data, writer.block_numbers)
        wiring.connect(m, ports.kv_write_request, writer.write_request)
        wiring.connect(m, ports.kv_write_data, writer.write_data)
        m.d.comb += [
            writer.layer_beat.eq(command.layer_beat), writer.head_beats.eq(command.head_beats),
            writer.block_beats.eq(command.block_beats), writer.geometry.eq(geometry),
            lists.start.p.layer.eq(command.layer), lists.start.p.kv_heads.eq(command.kv_heads),
            self.kv_write_done.eq(writer.done), self.kv_write_busy.eq(is_busy | ~self.kv_write_idle),
            self.events.kv_writer_busy.eq(is_busy),
            writer.read_grant.eq(~source.read.enable & ~source.read_held),
            newest.read.enable.eq(source.read.enable | (writer.read.enable & writer.read_grant)),
            newest.read.is_empty.eq(writer.read.is_empty & writer.read_grant),
            newest.read.advance.eq(source.read.advance | writer.read.advance),
            newest.read.overlay.eq(writer.read.overlay),
            source.read.data.eq(newest.read.data), writer.read.data.eq(newest.read.data),
            *(getattr(newest.read, name).eq(
                Mux(source.read.enable, getattr(source.read, name), getattr(writer.read, name)))
              for name in ("is_value", "row", "word", "part")),
            writer.scale_grant.eq(~scales.scale_read.enable & ~scales.scale_held),
            *(getattr(newest.scale_read, name).eq(
                Mux(scales.scale_read.enable, getattr(scales.scale_read, name), getattr(writer.scale_read, name)))
              for name in ("is_value", "row", "kv_head")),
            newest.scale_read.enable.eq(
                scales.scale_read.enable | (writer.scale_read.enable & writer.scale_grant)),
            scales.scale_read.scales.eq(newest.scale_read.scales),
            writer.scale_read.scales.eq(newest.scale_read.scales),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.kv_write_command.ready.eq(1)
                m.d.sync += [command.eq(self.kv_write_command.p), wait.eq(0)]
                with m.If(self.kv_write_command.valid):
                    m.d.sync += is_busy.eq(1)
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == GEOMETRY_CYCLES - 1):
                    m.next = "START"
            with m.State("START"):
                m.d.comb += lists.start.valid.eq(1)
                with m.If(lists.start.ready):
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(writer.done):
                    m.d.sync += is_busy.eq(0)
                    m.next = "IDLE"


def _geometry(m: Module, name: str, params: DesignParams, head_dim: Value, rows: Value, queries_per_kv: Value) -> Value:
    """kv_shapes.geometry of a command, valid GEOMETRY_CYCLES after its fields."""
    geometry = Signal(kv_shapes.geometry(params), name=f"{name}_geometry")
    log2 = kv_shapes.segments_log2(params)
    word_log2 = params.newest_bank_bytes.bit_length() - 1
    segments = geometry.segments
    m.d.sync += [
        segments.eq((head_dim + SEGMENT_BYTES - 1) >> kv_shapes.BLOCK_LOG2),
        geometry.dim_groups.eq(segments << (kv_shapes.BLOCK_LOG2 - log2)),
        geometry.queries_per_kv.eq(queries_per_kv),
        geometry.key_stride.eq((rows + (1 << word_log2) - 1) >> word_log2),
        geometry.value_stride.eq((rows + SEGMENT_BYTES - 1) >> kv_shapes.BLOCK_LOG2),
        geometry.key_head_words.eq(segments * geometry.key_stride),
        geometry.value_head_words.eq((segments << (kv_shapes.BLOCK_LOG2 - word_log2)) * geometry.value_stride),
        geometry.query_stride.eq(rows),
        geometry.query_head_words.eq(segments * rows),
        geometry.query_kv_words.eq(geometry.query_head_words * queries_per_kv),
    ]
    return geometry

