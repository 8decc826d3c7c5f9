"""KV tiles in memory, as arrays by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hls_py.golden.machine.memory import Striped
from hls_py.golden.machine.passes import Group
from rtl.contract.kv_layout import HEADER_BYTES, TileLayout
from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS


@dataclass
class Tile:
    """128 positions: int8 codes [128, D] and bfloat16 scale bits [128]."""

    keys: np.ndarray
    values: np.ndarray
    key_scales: np.ndarray
    value_scales: np.ndarray


def unpack_tile(beats: np.ndarray, layout: TileLayout) -> Tile:
    """Arrays of one tile's beats [tile_beats, beat_bytes]."""
    s, d = layout.segments, layout.padded_dim
    scales = beats[:layout.header_beats].reshape(-1)[:HEADER_BYTES].view("<u2").reshape(2, TILE_POSITIONS)
    keys = beats[layout.key_offset:layout.value_offset].reshape(-1, d // SEGMENT_BYTES, s, SEGMENT_BYTES)
    values = beats[layout.value_offset:layout.tile_beats].reshape(-1, d // s, s, SEGMENT_BYTES)
    return Tile(
        keys.transpose(0, 2, 1, 3).reshape(TILE_POSITIONS, d).view(np.int8),
        values.transpose(0, 3, 1, 2).reshape(TILE_POSITIONS, d).view(np.int8),
        scales[0], scales[1])


def pack_tile(tile: Tile, layout: TileLayout) -> np.ndarray:
    """Inverse of :func:`unpack_tile`."""
    s, d = layout.segments, layout.padded_dim
    beats = np.zeros((layout.tile_beats, layout.beat_bytes), np.uint8)
    header = np.zeros(layout.header_beats * layout.beat_bytes, np.uint8)
    header[:HEADER_BYTES] = np.stack([tile.key_scales, tile.value_scales]).astype("<u2").view(np.uint8).reshape(-1)
    beats[:layout.header_beats] = header.reshape(layout.header_beats, -1)
    keys = tile.keys.view(np.uint8).reshape(-1, s, d // SEGMENT_BYTES, SEGMENT_BYTES).transpose(0, 2, 1, 3)
    beats[layout.key_offset:layout.value_offset] = keys.reshape(-1, layout.beat_bytes)
    values = tile.values.view(np.uint8).reshape(-1, SEGMENT_BYTES, d // s, s).transpose(0, 2, 3, 1)
    beats[layout.value_offset:] = values.reshape(-1, layout.beat_bytes)
    return beats


class KvCache:
    """The tiles of one (layer, KV head) by position, through a block list."""

    def __init__(self, striped: Striped, layout: TileLayout, first_beat: int, block_beats: int):
        self.striped, self.layout, self.first_beat, self.block_beats = striped, layout, first_beat, block_beats

    def read(self, block: int) -> Tile:
        return unpack_tile(self.striped.read(self.first_beat + block * self.block_beats, self.layout.tile_beats),
                           self.layout)

    def write(self, block: int, tile: Tile) -> None:
        self.striped.write(self.first_beat + block * self.block_beats, pack_tile(tile, self.layout))


def new_positions(group: Group) -> list[tuple[int, slice, slice]]:
    """(tile index, places in the tile, rows of the pass) of a group's new positions, for each of its tiles."""
    newest = (group.past + group.rows - 1) // TILE_POSITIONS
    out = []
    for index in range(newest + 1):
        start = index * TILE_POSITIONS
        first, last = max(start, group.past), min(start + TILE_POSITIONS, group.past + group.rows)
        first = min(first, last)
        row = group.first_row + first - group.past
        out.append((index, slice(first - start, last - start) if first < last else slice(0, 0),
                    slice(row, row + last - first) if first < last else slice(0, 0)))
    return out
