"""How the outputs of a matrix are cut into tiles."""

from __future__ import annotations

from dataclasses import dataclass

from rtl.contract.design_params import DesignParams
from rtl.contract.weight_encodings import table_entries


@dataclass(frozen=True)
class Tile:
    """Outputs ``first`` … ``first + outputs − 1`` of a matrix, swept in ``steps`` steps."""

    first: int
    outputs: int
    steps: int


def shortest_steps(params: DesignParams) -> int:
    """Steps below which a tile waits for its tables: a builder serves its rows one after the other."""
    return min(params.rows, params.rows_per_builder) * table_entries(params.group)


def plan_tiles(outputs: int, unit: int, params: DesignParams) -> list[Tile]:
    """Tiles in order, each a whole number of ``unit`` outputs, tapering so that little is left to drain at the end.

    A tile holds at most ``tile_steps`` steps; halves follow while they stay at least twice as long as the tables'
    build. Raises ``ValueError`` when not even one unit fits a tile.
    """
    largest = params.tile_steps * params.outputs // unit * unit
    if not largest:
        raise ValueError(f"a unit of {unit} outputs doesn't fit a tile of {params.tile_steps}·{params.outputs}")
    shortest = shortest_steps(params) * params.outputs
    tiles, first = [], 0
    while first < outputs:
        left = outputs - first
        take = min(left, largest)
        if take == left and left >= 2 * shortest:
            take = -(-left // 2 // unit) * unit
        tiles.append(Tile(first, take, -(-take // params.outputs)))
        first += take
    return tiles
