"""Golden of rtl/attention/kv_writer.py: which beats and bytes of a tile the new positions are written to."""

from collections.abc import Iterator

import numpy as np

from hls_py.golden.attention.tile_walker import Group, Tile
from rtl.contract.kv_layout import KEY_SCALES_OFFSET_BYTES, SCALE_BYTES, VALUE_SCALES_OFFSET_BYTES, TileLayout
from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS

SCALES_PER_BEAT_GROUP = 8
"""Position groups of S whose scales share a beat of 16·S bytes."""


def written_tiles(groups: list[Group], kv_heads: int) -> list[Tile]:
    """Tiles that take new positions, in order: the newest one or two of each (group, KV head)."""
    return [Tile(group, head, entry, False) for group in groups for head in range(kv_heads)
            for entry in range(group.tiles - group.past // TILE_POSITIONS)]


def tile_writes(tile: Tile, layout: TileLayout) -> Iterator[tuple[int, int]]:
    """(first beat within the tile, beats) of each request."""
    S = layout.segments
    low, high = tile.past_positions, tile.positions - 1
    value_scales = VALUE_SCALES_OFFSET_BYTES // layout.beat_bytes
    for group in range(low // S, high // S + 1):
        yield KEY_SCALES_OFFSET_BYTES + group // SCALES_PER_BEAT_GROUP, 1
        yield value_scales + group // SCALES_PER_BEAT_GROUP, 1
    yield (layout.key_offset + low // S * layout.key_beats_per_group,
           (high // S - low // S + 1) * layout.key_beats_per_group)
    yield (layout.value_offset + low // SEGMENT_BYTES * layout.value_beats_per_block,
           (high // SEGMENT_BYTES - low // SEGMENT_BYTES + 1) * layout.value_beats_per_block)


def written_bytes(tile: Tile, layout: TileLayout) -> np.ndarray:
    """bool [tile_beats, beat_bytes]: the bytes of the new positions, which are written; no other may be."""
    written = np.zeros((layout.tile_beats, layout.beat_bytes), bool)
    new = np.zeros(TILE_POSITIONS, bool)
    new[tile.past_positions:tile.positions] = True
    dims, S = layout.padded_dim, layout.segments
    header = written[:layout.header_beats].reshape(-1)
    header[:2 * SCALE_BYTES * TILE_POSITIONS] = np.tile(np.repeat(new, SCALE_BYTES), 2)
    keys = np.repeat(new.reshape(-1, 1, S), dims // SEGMENT_BYTES, axis=1)
    written[layout.key_offset:layout.value_offset] = np.repeat(keys.reshape(-1, S), SEGMENT_BYTES, axis=1)
    values = np.repeat(new.reshape(-1, 1, SEGMENT_BYTES), dims // S, axis=1).reshape(-1, SEGMENT_BYTES)
    written[layout.value_offset:layout.tile_beats] = np.tile(values, (1, S))
    return written
