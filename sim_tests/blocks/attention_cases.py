"""Random passes for the attention benches: heads, groups, block lists and a KV cache full of rubbish where unused."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hls_py.golden.attention.tile_walker import Group, Tile, phase_beats, phases, walk
from hls_py.golden.machine.kv_cache import pack_tile, unpack_tile
from rtl.contract.command_words import ATTEND, KV_WRITE, Opcode
from rtl.contract.design_params import DesignParams
from rtl.contract.kv_layout import TileLayout
from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS, VECTOR_ALIGN, round_up
from rtl.streams.shapes import HeadKind

NAN_BFLOAT16 = 0x7FC0
LAYER, LAYERS = 2, 3

DesignSizes = tuple[int, int, int, int, int]
"""(ports, port_bytes, A, P, W) of a design."""
ModelSizes = tuple[int, int, int]
"""(KV heads, query heads a KV head, head_dim)."""


def params(ports: int, port_bytes: int, row_vectors: int, rows: int, lanes: int, max_head_dim: int = 128,
           max_row_vectors: int = 32, **more: Any) -> DesignParams:
    return DesignParams(ports=ports, port_bytes=port_bytes, row_vectors=row_vectors, rows=rows, vector_lanes=lanes,
                        max_head_dim=max_head_dim, max_row_vectors=max_row_vectors, tables=5, outputs=5, tile_steps=64,
                        drain_steps=128, ring_words=64, max_inner=512, **more)


def bfloat16(bits: np.ndarray) -> np.ndarray:
    return (np.asarray(bits, np.uint32) << 16).view(np.float32)


@dataclass
class Case:
    """One ATTEND (and KV_WRITE): everything that goes in, and memory before it."""

    params: DesignParams
    kv_heads: int
    queries_per_kv: int
    head_dim: int
    sizes: list[tuple[int, int]]
    """(rows, past) of each group."""
    seed: int
    shared_lists: bool = False
    branching: bool = False
    """Rows see a random subset of their group's new tokens, rather than all up to themselves."""
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        rng = self.rng = np.random.default_rng(self.seed)
        first_rows = np.cumsum([0] + [rows for rows, _ in self.sizes])
        self.groups = [Group(int(first), rows, past) for first, (rows, past) in zip(first_rows, self.sizes)]
        self.rows = int(first_rows[-1])
        assert self.rows <= self.params.rows
        self.layout = TileLayout(self.head_dim, self.params.beat_bytes)
        dims = self.layout.padded_dim
        self.queries, self.query_scales = self._heads(self.queries_per_kv * self.kv_heads, dims)
        self.keys, self.key_scales = self._heads(self.kv_heads, dims)
        self.values, self.value_scales = self._heads(self.kv_heads, dims)
        self.factor = np.float32(np.log2(np.e) / np.sqrt(self.head_dim))

        # Blocks of all sequences lie anywhere; a block holds all layers and heads.
        self.head_beats = self.layout.tile_beats + int(rng.integers(0, 3))
        self.layer_beat = LAYER * self.kv_heads * self.head_beats + int(rng.integers(0, 5))
        self.block_beats = LAYERS * self.kv_heads * self.head_beats + 7
        lists = len(self.groups) * (1 if self.shared_lists else self.kv_heads)
        numbers = iter(rng.permutation(sum(g.tiles for g in self.groups) * self.kv_heads + lists + 3))
        self.blocks = []
        for group in self.groups:
            first = [int(next(numbers)) for _ in range(group.tiles)]
            self.blocks.append([first if self.shared_lists or not head else
                                [int(next(numbers)) for _ in range(group.tiles)] for head in range(self.kv_heads)])
        self.memory: dict[tuple[int, int], np.ndarray] = {}
        for group, heads in zip(self.groups, self.blocks):
            for head, numbers_of_head in enumerate(heads):
                for entry, block in enumerate(numbers_of_head):
                    self.memory[block, head] = self._tile(group.past - (group.tiles - 1 - entry) * TILE_POSITIONS)
        self.list_layer_bytes = int(rng.integers(0, 4)) * 64
        self.list_head_bytes = 0 if self.shared_lists else 4 * int(max(g.tiles for g in self.groups)) + 12
        self.list_addresses = [0x1000 * (n + 1) + (5 << 33 if self.params.address_bits > 36 else 0)
                               for n in range(len(self.groups))]
        self.visible = self._visible()

    def _heads(self, heads: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes int8 [rows, heads, dims], zero beyond head_dim, and bfloat16 scale bits [rows, heads]."""
        codes = self.rng.integers(-127, 128, (self.rows, heads, dims)).astype(np.int8)
        codes[self.rng.random(codes.shape) < 0.02] = 127
        codes[..., self.head_dim:] = 0
        scales = self._scales((self.rows, heads))
        codes[scales == 0] = 0
        return codes, scales

    def _scales(self, shape: tuple[int, ...]) -> np.ndarray:
        """bfloat16 bits of about 0.005 … 0.08, now and then 0 or very small."""
        scales = np.exp(self.rng.uniform(np.log(0.005), np.log(0.08), shape)).astype(np.float32).view(np.uint32) >> 16
        scales[self.rng.random(shape) < 0.03] = 0
        scales[self.rng.random(shape) < 0.03] = 0x0081
        return scales.astype(np.uint16)

    def _tile(self, past: int) -> np.ndarray:
        """Beats of a tile whose first ``past`` positions were written; rubbish elsewhere."""
        raw = self.rng.integers(0, 256, (self.layout.tile_beats, self.layout.beat_bytes)).astype(np.uint8)
        tile = unpack_tile(raw, self.layout)
        past = min(max(past, 0), TILE_POSITIONS)
        tile.keys, tile.values = tile.keys.copy(), tile.values.copy()
        for codes in (tile.keys, tile.values):
            codes[:past] = self.rng.integers(-127, 128, codes[:past].shape)
            codes[:past, self.head_dim:] = 0
        rubbish = self.rng.choice(np.array([NAN_BFLOAT16, 0xFFFF, 0x7F80, 0xFF80], np.uint16), (2, TILE_POSITIONS))
        tile.key_scales, tile.value_scales = rubbish
        tile.key_scales[:past], tile.value_scales[:past] = self._scales((past,)), self._scales((past,))
        return pack_tile(tile, self.layout)

    def _visible(self) -> np.ndarray:
        """bool [rows, rows]: row r sees row j's new token."""
        visible = np.zeros((self.rows, self.rows), bool)
        for group in self.groups:
            here = slice(group.first_row, group.first_row + group.rows)
            seen = np.tril(np.ones((group.rows, group.rows), bool))
            if self.branching:
                seen &= self.rng.random(seen.shape) < 0.6
                np.fill_diagonal(seen, True)
            visible[here, here] = seen
        return visible

    # ---- what goes in ------------------------------------------------------------------------------------------------

    @cached_property
    def pass_state(self) -> dict[str, Any]:
        """Port values of pass_state; entries that mean nothing are rubbish."""
        rows, rng = self.params.rows, self.rng

        def padded(values: list[int], bits: int) -> list[int]:
            return [*values, *(int(v) for v in rng.integers(0, 1 << bits, rows - len(values)))]

        row_bits, count_bits = max(1, (rows - 1).bit_length()), rows.bit_length()
        masks = [sum(int(seen) << j for j, seen in enumerate(row)) for row in self.visible]
        return {
            "rows": self.rows, "groups": len(self.groups),
            "visible": padded(masks, rows), "first_row": padded([g.first_row for g in self.groups], row_bits),
            "group_rows": padded([g.rows for g in self.groups], count_bits - 1),
            "past": padded([g.past for g in self.groups], 32), "blocks": padded([g.tiles for g in self.groups], 32),
            "list_address": padded(self.list_addresses, 32),
            "list_layer_bytes": self.list_layer_bytes, "list_head_bytes": self.list_head_bytes,
        }

    def set_pass_state(self, simulator) -> None:
        for name, value in self.pass_state.items():
            simulator.set(f"pass_state__{name}", value)

    @property
    def row_words(self) -> int:
        return self.queries_per_kv * self.kv_heads * round_up(self.head_dim, VECTOR_ALIGN) // self.params.vector_lanes

    def attend_command(self, **more: int) -> int:
        return ATTEND.pack_int(
            opcode=Opcode.ATTEND, kv_heads=self.kv_heads, queries_per_kv=self.queries_per_kv, head_dim=self.head_dim,
            layer=LAYER, block_beats=self.block_beats, layer_beat=self.layer_beat, head_beats=self.head_beats,
            factor=float(self.factor), row_words=self.row_words, **more)

    def write_command(self) -> int:
        return KV_WRITE.pack_int(
            opcode=Opcode.KV_WRITE, kv_heads=self.kv_heads, head_dim=self.head_dim, layer=LAYER,
            block_beats=self.block_beats, layer_beat=self.layer_beat, head_beats=self.head_beats)

    def head_streams(self, heads_per_tile: int = 3) -> dict[str, dict[str, np.ndarray]]:
        """heads and head_scales as the vector unit sends them: kinds in any order, some heads at a time, row by row."""
        segments: list[tuple] = []
        scales: list[tuple] = []
        kinds = ((HeadKind.QUERY, self.queries, self.query_scales), (HeadKind.KEY, self.keys, self.key_scales),
                 (HeadKind.VALUE, self.values, self.value_scales))
        for n in np.random.default_rng(self.seed).permutation(len(kinds)):
            kind, codes, scale = kinds[n]
            for first in range(0, codes.shape[1], heads_per_tile):
                for row in range(self.rows):
                    for head in range(first, min(first + heads_per_tile, codes.shape[1])):
                        scales.append((kind.value, row, head, int(scale[row, head])))
                        for s, piece in enumerate(codes[row, head].reshape(-1, SEGMENT_BYTES)):
                            segments.append((kind.value, row, head, s, int.from_bytes(piece.tobytes(), "little")))
        return {"heads": _columns(("kind", "row", "head", "segment", "data"), segments),
                "head_scales": _columns(("kind", "row", "head", "scale"), scales)}

    def list_requests(self, written_only: bool = False) -> list[tuple[int, int]]:
        """(byte address, words) of each (group, KV head)."""
        return [(address + LAYER * self.list_layer_bytes + head * self.list_head_bytes,
                 self._list_words(group, written_only))
                for group, address in zip(self.groups, self.list_addresses) for head in range(self.kv_heads)]

    def list_words(self, written_only: bool = False) -> list[int]:
        """The block numbers that these requests bring."""
        return [block for group, heads in zip(self.groups, self.blocks) for numbers in heads
                for block in numbers[:self._list_words(group, written_only)]]

    def _list_words(self, group: Group, written_only: bool) -> int:
        return group.tiles - group.past // TILE_POSITIONS if written_only else group.tiles

    # ---- what must come out ------------------------------------------------------------------------------------------

    @cached_property
    def tiles(self) -> list[Tile]:
        return walk(self.groups, self.kv_heads)

    def block_of(self, tile: Tile) -> int:
        return self.blocks[self.groups.index(tile.group)][tile.kv_head][tile.entry]

    def tile_beat(self, block: int, kv_head: int) -> int:
        return (block * self.block_beats + self.layer_beat + kv_head * self.head_beats) % 2**32

    def reads(self) -> tuple[list[tuple[int, int]], np.ndarray]:
        """KV requests (beat, beats) in order, and all the beats that they bring, uint8 [n, beat_bytes]."""
        requests, data = [], [np.zeros((0, self.layout.beat_bytes), np.uint8)]
        for is_value, tile in phases(self.tiles):
            first, beats = phase_beats(is_value, tile, self.layout)
            if beats:
                requests.append((self.tile_beat(self.block_of(tile), tile.kv_head) + first, beats))
                data.append(self.memory[self.block_of(tile), tile.kv_head][first:first + beats])
        return requests, np.concatenate(data)

    def tile_arrays(self, tile: Tile) -> tuple[np.ndarray, ...]:
        """Keys and values int8 [positions, D] and their scale bits [positions] of a tile, new positions included."""
        stored = unpack_tile(self.memory[self.block_of(tile), tile.kv_head], self.layout)
        new = slice(tile.group.first_row + max(0, tile.start - tile.group.past),
                    tile.group.first_row + tile.start - tile.group.past + tile.positions)
        past = tile.past_positions
        return tuple(np.concatenate([old[:past], fresh[new, tile.kv_head][:tile.positions - past]]) for old, fresh in (
            (stored.keys, self.keys), (stored.values, self.values),
            (stored.key_scales, self.key_scales), (stored.value_scales, self.value_scales)))

    def sequence(self, group: Group) -> tuple[np.ndarray, ...]:
        """The same by absolute position for all KV heads: [past + rows, kv_heads, …]."""
        heads = []
        for head in range(self.kv_heads):
            of_head = [t for t in self.tiles if t.group == group and t.kv_head == head][::-1]
            heads.append([np.concatenate(parts) for parts in zip(*map(self.tile_arrays, of_head))])
        return tuple(np.stack(parts, axis=1) for parts in zip(*heads))


def _columns(names: tuple[str, ...], rows: list[tuple]) -> dict[str, np.ndarray]:
    return {name: np.array(column, object if name == "data" else None) for name, column in zip(names, zip(*rows))}


def beat_ints(beats: np.ndarray) -> np.ndarray:
    """Beats uint8 [n, beat_bytes] as Python integers."""
    return np.array([int.from_bytes(b.tobytes(), "little") for b in beats] or np.zeros(0), object)
