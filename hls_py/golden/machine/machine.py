"""Runs passes: what the accelerator writes to memory, from what lies in memory.

Commands are executed one after the other in program order, which is an order that the hardware's semaphores allow; a
row's bits don't depend on which. Matrices stay unpacked from pass to pass, as int8: made float32 tile by tile for each
product, they multiply as fast as float32 out of memory would.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from hls_py.golden import float32
from hls_py.golden.attention.attention import attend
from hls_py.golden.attention.float_attention import float_attend
from hls_py.golden.head.argmax import argmax
from hls_py.golden.head.logits import logits_of, top_k
from hls_py.golden.machine.blas import use_one_thread
from hls_py.golden.machine.kv_cache import KvCache, Tile, new_positions
from hls_py.golden.machine.memory import Memory, Striped
from hls_py.golden.machine.passes import Group, Pass, StopError, read_pass
from hls_py.golden.machine.precision import FloatTiles, Precision, float_norm
from hls_py.golden.machine.products import Drain, Fields, Products
from hls_py.golden.machine.recorder import EMBEDDING, Recorder, natural_order
from hls_py.golden.machine.weight_stream import Record, Remembered, WeightStream
from hls_py.golden.ternary_matmul.encoding import decode_tile
from hls_py.golden.vector_unit.drain import drain_residual, gated, quantise_heads, rotated_heads, row_scales
from hls_py.golden.vector_unit.gather import gather_embedding, gather_rotary
from hls_py.golden.vector_unit.quantise import quantise
from rtl.contract import command_words as words
from rtl.contract.command_words import ActivationFunction, DrainMode, Opcode, QuantiseSource, QuantiseTarget
from rtl.contract.design_params import DesignParams
from rtl.contract.kv_layout import TileLayout
from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS, VECTOR_ALIGN, round_up
from rtl.contract.pass_descriptor import RESULT_HEADER, RowFlag, result_bytes
from rtl.contract.register_map import ErrorCause
from rtl.contract.stream_records import HEAD_CHUNK_ROWS, Destination

decode = lru_cache(maxsize=1 << 14)(words.decode)
"""Every token runs the same commands; the fields are not to be changed."""


class Machine:
    """One accelerator with its memory; ``run_pass`` is the only thing it does.

    ``kv_bases`` and ``table_bases`` are the byte addresses on each port, as in the registers. ``recorder``, if set, is
    told what every block puts out.
    """

    def __init__(self, params: DesignParams, memory: Memory, precision: Precision | None = None):
        use_one_thread()
        self.params, self.memory = params, memory
        self.precision = precision or Precision()
        self.kv_bases: tuple[int, ...] = (0,) * params.ports
        self.table_bases: tuple[int, ...] = (0,) * params.ports
        self.slot_token = np.zeros(params.max_slots, np.int64)
        self.recorder: Recorder | None = None
        self.float_tiles = FloatTiles()
        self.remembered = Remembered()

    def forget_weights(self) -> None:
        """Drop what is remembered of the weight stream; for when the host has written over it."""
        self.remembered = Remembered()

    def run_pass(self, address: int) -> None:
        """Execute the pass described at ``address``; raises :class:`StopError` with the hardware's cause."""
        described = read_pass(self.memory, address, self.params)
        _Run(self, described).execute()

    def made(self, record: Record, make: Callable[[np.ndarray], Any]) -> Any:
        """``make(payload)``, once for every record."""
        if record.payload is not None:
            self.remembered.made[record.key] = make(record.payload)
        return self.remembered.made[record.key]


class _Run:
    """State of one pass."""

    def __init__(self, machine: Machine, described: Pass):
        self.machine, self.params, self.described = machine, machine.params, described
        self.count = len(described.rows)
        self.stream = WeightStream(machine.memory, described.extents, machine.params, machine.remembered)
        self.tables = Striped(machine.memory, machine.table_bases, self.params.port_bytes)
        self.kv = Striped(machine.memory, machine.kv_bases, self.params.port_bytes)
        self.tokens = [int(machine.slot_token[r.token]) if r.flags & RowFlag.TOKEN_FROM_SLOT else r.token
                       for r in described.rows]
        self.residual = np.zeros((self.count, 0), np.float32)
        self.vector = np.zeros((self.count, 0), np.float32)
        self.gains: list[np.ndarray | None] = [None, None]
        self.activation: list[tuple[np.ndarray, np.ndarray] | None] = [None, None]
        self.products = Products()
        self.heads: dict[DrainMode, tuple[np.ndarray, np.ndarray]] = {}
        self.float_heads: dict[DrainMode, np.ndarray] = {}
        self.layer_tiles: dict[tuple[int, int, int], list[tuple[int, Tile]]] = {}
        """By layer, group and KV head: what ATTEND has read, KV_WRITE writes."""
        self.quantised = 0
        self.cos = self.sin = np.zeros((self.count, 0), np.float32)
        self.operands: tuple[np.ndarray, np.ndarray] | None = None
        self.attended = self.normed = self.residual

    def execute(self) -> None:
        handlers: dict[Opcode, Callable[[Fields], None]] = {
            Opcode.TILE: self.tile, Opcode.DRAIN: self.drain, Opcode.QUANTISE: self.quantise,
            Opcode.GATHER: self.gather,
            Opcode.ATTEND: self.attend, Opcode.KV_WRITE: self.kv_write, Opcode.HEAD: self.head,
        }
        program = self.described.program
        for number in range(len(program) // words.COMMAND_BYTES):
            raw = program[number * words.COMMAND_BYTES:(number + 1) * words.COMMAND_BYTES]
            try:
                opcode, fields = decode(raw)
            except ValueError:
                raise StopError(ErrorCause.BAD_COMMAND, number) from None
            if opcode not in (Opcode.TILE, Opcode.DRAIN):
                for drain in self.products.drained():
                    self.write_drained(drain)
            if opcode is Opcode.END:
                return
            handlers[opcode](fields)  # type: ignore[arg-type]
        raise StopError(ErrorCause.BAD_COMMAND, number + 1, "the program has no END")

    # ---- gains ----------------------------------------------------------------------------------------------------

    def _load_gains(self) -> None:
        """Gains that lie before the next record of another kind move to their banks."""
        while self.stream.peek_destination() is Destination.GAINS:
            bank, gains = self._next_gains()
            if self.gains[bank] is not None:
                raise StopError(ErrorCause.WATCHDOG, 0, "gains arrive while their bank is in use")
            self.gains[bank] = gains

    def _next_gains(self) -> tuple[int, np.ndarray]:
        record = self.stream.next(Destination.GAINS)
        gains = self.machine.made(record, lambda payload: float32.canonical(payload.reshape(-1).view("<f4")))
        return record.flags & 1, gains

    def _gains(self, bank: int, width: int) -> np.ndarray:
        while self.gains[bank] is None:
            if self.stream.peek_destination() is not Destination.GAINS:
                raise StopError(ErrorCause.WATCHDOG, 0, "a norm waits for gains that don't come")
            arrived, values = self._next_gains()
            self.gains[arrived] = values
        gains = self.gains[bank]
        assert gains is not None
        return gains[:width]

    # ---- commands -------------------------------------------------------------------------------------------------

    def gather(self, f: Fields) -> None:
        p = self.params
        width = f["words"] * p.vector_lanes

        def rows(first_beat: int, row_beats: int, index: list[int]) -> bytes:
            return b"".join(self.tables.read(first_beat + i * row_beats, row_beats).tobytes() for i in index)

        order = np.arange(self.count)
        embedding = rows(f["embedding_beat"], f["embedding_row_beats"], self.tokens)
        self.residual = gather_embedding(embedding, f["embedding_row_beats"] * p.beat_bytes, order, width)
        rotary = rows(f["rotary_beat"], f["rotary_row_beats"], [r.position for r in self.described.rows])
        self.cos, self.sin = gather_rotary(rotary, f["rotary_row_beats"] * p.beat_bytes, order, f["pairs"])

    def quantise(self, f: Fields) -> None:
        width = f["words"] * self.params.vector_lanes
        source = self.residual if f["source"] == QuantiseSource.RESIDUAL else self.vector
        x = source[:, :width]
        gains = self._gains(f["gain_bank"], width) if f["has_norm"] else None
        codes, scale = quantise(x, gains, bool(f["has_norm"]), np.float32(f["inverse_count"]), f["epsilon"])
        self._record_quantise(x)
        if f["has_norm"]:
            self.gains[f["gain_bank"]] = None
        if f["target"] == QuantiseTarget.HEAD:
            padded = np.zeros((self.count, f["slices"] * SEGMENT_BYTES), np.int8)
            padded[:, :width] = codes
            self.operands = padded, scale
            if self.machine.precision.head is not None:
                self.normed = float_norm(x, gains, f["inverse_count"], f["epsilon"])
        else:
            self.activation[f["activation"]] = codes, scale

    def _activation(self, buffer: int) -> tuple[np.ndarray, np.ndarray]:
        held = self.activation[buffer]
        if held is None:
            raise StopError(ErrorCause.WATCHDOG, 0, "a tile waits for activations that don't come")
        return held

    def tile(self, f: Fields) -> None:
        self._load_gains()
        slices, steps = f["slices"], f["steps"]
        record = self.stream.next(Destination.CODES, slices * steps, (slices, steps))
        codes, _ = self._activation(f["activation"])
        weights = self.machine.made(record, lambda payload: np.ascontiguousarray(
            decode_tile(payload.tobytes(), self.params, slices, steps)))
        self.products.multiply(weights, codes)

    def drain(self, f: Fields) -> None:
        heads = f["mode"] in (DrainMode.QUERY, DrainMode.KEY, DrainMode.VALUE)
        first = (f["first_head"] * round_up(f["head_dim"], VECTOR_ALIGN) if heads
                 else f["first_word"] * self.params.vector_lanes)
        self.products.drain(f, self._activation(f["activation"])[1], first)

    def write_drained(self, drain: Drain) -> None:
        f, mode, sums = drain.fields, DrainMode(drain.fields["mode"]), drain.sums
        scale = row_scales(drain.activation_scale, np.float32(f["scale"]))
        if mode is DrainMode.RESIDUAL:
            part = slice(drain.first, drain.last)
            self.residual[:, part] = drain_residual(sums[0], scale, self.residual[:, part])
        elif mode is DrainMode.GATED:
            up_scale = row_scales(drain.activation_scale, np.float32(f["scale2"]))
            self._write_vector(drain.first, gated(sums[0], sums[1], scale, up_scale, ActivationFunction(f["function"])))
        else:
            dims = round_up(f["head_dim"], VECTOR_ALIGN)
            rotate = mode is not DrainMode.VALUE
            values = rotated_heads(sums[0].reshape(self.count, -1, dims), scale, self.cos if rotate else None,
                                   self.sin if rotate else None, rotate, f["head_dim"])
            codes, scales = quantise_heads(values)
            if f["first_head"]:
                before = self.heads[mode]
                codes, scales = np.concatenate([before[0], codes], 1), np.concatenate([before[1], scales], 1)
                values = np.concatenate([self.float_heads[mode], values], 1)
            self.heads[mode], self.float_heads[mode] = (codes, scales), values
            self.layer_tiles.clear()

    def _write_vector(self, first: int, values: np.ndarray) -> None:
        width = first + values.shape[1]
        if first == 0:
            self.vector = np.zeros((self.count, width), np.float32)
        elif width > self.vector.shape[1]:
            self.vector = np.pad(self.vector, ((0, 0), (0, width - self.vector.shape[1])))
        self.vector[:, first:width] = values

    # ---- attention ------------------------------------------------------------------------------------------------

    def _blocks(self, group: Group, layer: int, head: int) -> np.ndarray:
        """Block numbers of a group, newest first."""
        h = self.described.header
        address = group.list_address + layer * h["list_layer_bytes"] + head * h["list_head_bytes"]
        try:
            return self.machine.memory.read(address, 4 * group.blocks).view("<u4")
        except ValueError as error:
            raise StopError(ErrorCause.READ_ERROR, 0, str(error)) from None

    def _cache(self, f: Fields, head: int) -> KvCache:
        layout = TileLayout(f["head_dim"], self.params.beat_bytes)
        return KvCache(self.kv, layout, f["layer_beat"] + head * f["head_beats"], f["block_beats"])

    def _tiles(self, f: Fields, group: Group, head: int) -> list[tuple[int, Tile]]:
        """(block number, tile) of a layer's tiles with the pass's new positions filled in, oldest first."""
        place = f["layer"], group.first_row, head
        if place not in self.layer_tiles:
            keys, key_scales = self.heads[DrainMode.KEY]
            values, value_scales = self.heads[DrainMode.VALUE]
            cache = self._cache(f, head)
            blocks = self._blocks(group, f["layer"], head)
            out = self.layer_tiles[place] = []
            for index, at, rows in new_positions(group):
                block = int(blocks[group.blocks - 1 - index])
                tile = cache.read(block)
                tile.keys[at], tile.key_scales[at] = keys[rows, head], key_scales[rows, head]
                tile.values[at], tile.value_scales[at] = values[rows, head], value_scales[rows, head]
                out.append((block, tile))
        return self.layer_tiles[place]

    def attend(self, f: Fields) -> None:
        per_kv, head_dim = f["queries_per_kv"], f["head_dim"]
        queries, query_scales = self.heads[DrainMode.QUERY]
        dims = round_up(head_dim, VECTOR_ALIGN)
        output = np.zeros((self.count, f["kv_heads"] * per_kv, dims), np.float32)
        for group in self.described.groups:
            rows = slice(group.first_row, group.first_row + group.rows)
            seen = np.array([[self.described.rows[r].visible >> (group.first_row + j) & 1 for j in range(group.rows)]
                             for r in range(rows.start, rows.stop)], bool)
            by_head = [[tile for _, tile in self._tiles(f, group, head)] for head in range(f["kv_heads"])]

            def gathered(part: str, by_head: list[list[Tile]] = by_head) -> np.ndarray:
                """[positions, kv_heads, …]."""
                return np.stack([np.concatenate([getattr(t, part) for t in tiles]) for tiles in by_head], axis=1)

            keys, values = gathered("keys"), gathered("values")[..., :head_dim]
            key_scales, value_scales = _bf16(gathered("key_scales")), _bf16(gathered("value_scales"))
            if self.machine.precision.attention:
                output[rows, :, :head_dim] = self._float_attend(f, group, seen, (keys, key_scales),
                                                                (values, value_scales))
            else:
                output[rows, :, :head_dim] = attend(
                    queries[rows], _bf16(query_scales[rows]), keys, key_scales, values, value_scales,
                    group.past, seen, np.float32(f["factor"]))
        self._record_heads(f)
        self.attended = output[..., :head_dim].reshape(self.count, -1)
        self._write_vector(0, output.reshape(self.count, -1))

    def _float_attend(self, f: Fields, group: Group, seen: np.ndarray, keys: tuple[np.ndarray, np.ndarray],
                      values: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Attention of a group with what ``precision`` says in float."""
        precision, d = self.machine.precision, f["head_dim"]
        rows = slice(group.first_row, group.first_row + group.rows)
        codes, scales = self.heads[DrainMode.QUERY]
        queries = (self.float_heads[DrainMode.QUERY][rows, :, :d] if precision.queries
                   else codes[rows, :, :d] * _bf16(scales[rows])[..., None])
        if precision.kv:
            both = self._float_kv(f, group)
            return float_attend(queries, both[0], both[1], None, group.past, seen, f["factor"],
                                precision.attention_weights)
        return float_attend(queries, keys[0][..., :d] * keys[1][..., None], values[0] * values[1][..., None],
                            values[1], group.past, seen, f["factor"], precision.attention_weights)

    def _float_kv(self, f: Fields, group: Group) -> tuple[np.ndarray, np.ndarray]:
        """Float keys and values [positions, kv_heads, head_dim] of a group, new ones put in first."""
        d = f["head_dim"]
        new = [self.float_heads[mode][..., :d] for mode in (DrainMode.KEY, DrainMode.VALUE)]
        by_head = []
        for head in range(f["kv_heads"]):
            blocks = self._blocks(group, f["layer"], head)
            tiles = []
            for index, at, rows in new_positions(group):
                block = int(blocks[group.blocks - 1 - index])
                tile = self.machine.float_tiles.tile(
                    f["layer_beat"] + head * f["head_beats"] + block * f["block_beats"], d)
                for kept, values in zip(tile, new):
                    kept[at] = values[rows, head]
                tiles.append(tile)
            by_head.append([np.concatenate([tile[which] for tile in tiles]) for which in (0, 1)])
        keys, values = (np.stack([pair[which] for pair in by_head], axis=1) for which in (0, 1))
        return keys, values

    def kv_write(self, f: Fields) -> None:
        for group in self.described.groups:
            for head in range(f["kv_heads"]):
                cache = self._cache(f, head)
                for block, tile in self._tiles(f, group, head)[group.past // TILE_POSITIONS:]:
                    cache.write(block, tile)

    # ---- recording --------------------------------------------------------------------------------------------------

    def _record_quantise(self, x: np.ndarray) -> None:
        """Four quantisations a layer read what its blocks put out, the final norm's the last residual."""
        layer, which = divmod(self.quantised, 4)
        self.quantised += 1
        if not self.machine.recorder:
            return
        if which == 0:
            self.machine.recorder.add(max(0, layer - 1), "residual" if layer else EMBEDDING, x)
        elif which == 1:
            self.machine.recorder.add(layer, "attention", self.attended)
        else:
            self.machine.recorder.add(layer, "attention_residual" if which == 2 else "gated", x)

    def _record_heads(self, f: Fields) -> None:
        """Heads as attention reads them."""
        if not self.machine.recorder:
            return
        d, precision = f["head_dim"], self.machine.precision
        for mode, name, is_float in ((DrainMode.QUERY, "query", precision.queries),
                                     (DrainMode.KEY, "key", precision.kv), (DrainMode.VALUE, "value", precision.kv)):
            codes, scales = self.heads[mode]
            heads = self.float_heads[mode][..., :d] if is_float else codes[..., :d] * _bf16(scales)[..., None]
            rows = heads.reshape(self.count, -1) if mode is DrainMode.VALUE else natural_order(heads, d)
            self.machine.recorder.add(f["layer"], name, rows)

    # ---- head -----------------------------------------------------------------------------------------------------

    def head(self, f: Fields) -> None:
        self._load_gains()
        assert self.operands is not None
        operands, row_scale = self.operands
        segments, vocabulary = self.params.segments, f["vocabulary"]
        chunk = round_up(HEAD_CHUNK_ROWS, segments)
        logits = np.empty((self.count, vocabulary), np.float32)
        for first in range(0, vocabulary, chunk):
            rows = min(chunk, vocabulary - first)
            groups = -(-rows // segments)
            beats = -(-4 * groups * segments // self.params.beat_bytes)
            scales = self.machine.made(self.stream.next(Destination.HEAD_SCALES, beats),
                                       lambda payload: payload.reshape(-1).view("<f4"))

            def unpacked(payload: np.ndarray, groups: int = groups) -> np.ndarray:
                by_beat = payload.reshape(groups, f["segments"], segments, SEGMENT_BYTES)
                return by_beat.transpose(0, 2, 1, 3).reshape(groups * segments, -1).view(np.int8)

            codes = self.machine.made(self.stream.next(Destination.HEAD_ROWS, groups * f["segments"],
                                                       (f["segments"],)), unpacked)
            logits[:, first:first + rows] = logits_of(operands, row_scale, codes[:rows], scales[:rows])
        if self.machine.precision.head is not None:
            rows_of_head = self.machine.precision.head
            logits = (self.normed[:, :rows_of_head.shape[1]] @ rows_of_head.T).astype(np.float32)
        self._write_results(logits, f["top_k"])

    def _write_results(self, logits: np.ndarray, k: int) -> None:
        h, memory = self.described.header, self.machine.memory
        best = argmax(logits)
        for n, row in enumerate(self.described.rows):
            if row.flags & RowFlag.LOGITS:
                memory.write(h["logits_address"] + n * h["logits_row_bytes"], logits[n].astype("<f4").view(np.uint8))
            if not row.flags & (RowFlag.ARGMAX | RowFlag.TOP_K):
                continue
            if row.flags & RowFlag.ARGMAX:
                self.machine.slot_token[row.slot] = best[n]
            picked = top_k(logits[n], k) if row.flags & RowFlag.TOP_K else np.zeros(0, np.int64)
            result = RESULT_HEADER.pack(token=int(best[n]), logit=float(logits[n, best[n]]), count=len(picked))
            result += b"".join(int(t).to_bytes(4, "little") + logits[n, t].astype("<f4").tobytes() for t in picked)
            memory.write(h["results_address"] + n * result_bytes(self.params.top_k), result)


def _bf16(bits: np.ndarray) -> np.ndarray:
    """float32 behind bfloat16 bits."""
    return float32.bits_to_float(bits.astype(np.int64) << 16)
