"""Golden of rtl/attention/tile_walker.py: the order of tiles and phases, and the beats they ask for."""

from collections.abc import Iterator
from dataclasses import dataclass

from rtl.contract.kv_layout import TileLayout
from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS

KEYS_AHEAD = 2
"""Tiles whose K phases come before a tile's V phase."""


@dataclass(frozen=True)
class Group:
    """Rows first_row … of one sequence, which has ``past`` positions in memory."""

    first_row: int
    rows: int
    past: int

    @property
    def tiles(self) -> int:
        return -(-(self.past + self.rows) // TILE_POSITIONS)


@dataclass(frozen=True)
class Tile:
    """One tile of a (group, KV head); ``entry`` is its place in the block list, newest first."""

    group: Group
    kv_head: int
    entry: int
    last_of_command: bool

    @property
    def start(self) -> int:
        """Absolute position of the tile's first one."""
        return (self.group.tiles - 1 - self.entry) * TILE_POSITIONS

    @property
    def difference(self) -> int:
        return max(self.start - self.group.past, -TILE_POSITIONS)

    @property
    def positions(self) -> int:
        """Positions that exist."""
        return min(TILE_POSITIONS, self.group.past + self.group.rows - self.start)

    @property
    def past_positions(self) -> int:
        """Positions that lie in memory."""
        return min(TILE_POSITIONS, max(0, self.group.past - self.start))

    @property
    def first_tile(self) -> bool:
        return self.entry == 0

    @property
    def last_tile(self) -> bool:
        return self.entry == self.group.tiles - 1


def walk(groups: list[Group], kv_heads: int) -> list[Tile]:
    """Tiles of a command in order."""
    last = (len(groups) - 1, kv_heads - 1)
    return [Tile(group, head, entry, (g, head) == last and entry == group.tiles - 1)
            for g, group in enumerate(groups) for head in range(kv_heads) for entry in range(group.tiles)]


def phases(tiles: list[Tile]) -> Iterator[tuple[bool, Tile]]:
    """(is a V phase, tile) in the order of the int8 array: K₀ K₁ K₂ V₀ K₃ V₁ …"""
    for n, tile in enumerate(tiles):
        yield False, tile
        if n >= KEYS_AHEAD:
            yield True, tiles[n - KEYS_AHEAD]
    for tile in tiles[-KEYS_AHEAD:]:
        yield True, tile


def phase_beats(is_value: bool, tile: Tile, layout: TileLayout) -> tuple[int, int]:
    """(first beat within the tile, beats) that the phase asks memory for; no beats where nothing lies there."""
    if not tile.past_positions:
        return 0, 0
    if is_value:
        return layout.value_offset, -(-tile.past_positions // SEGMENT_BYTES) * layout.value_beats_per_block
    return 0, layout.header_beats + -(-tile.past_positions // layout.segments) * layout.key_beats_per_group
