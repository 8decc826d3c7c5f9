"""How the outputs of matrices are cut into tiles, so that engine, drain and quantise hide each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rtl.contract.command_words import DRAIN_TILES
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, round_up
from rtl.contract.weight_encodings import table_entries

DRAIN_COMMAND_CYCLES = 60
"""What a DRAIN takes besides its rows' scales and words: pipelines that fill."""
MOST_TILES = 10
RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
ROUNDS = 3


@dataclass(frozen=True)
class Tile:
    """Outputs ``first`` … ``first + outputs − 1`` of a matrix, swept in ``steps`` steps."""

    first: int
    outputs: int
    steps: int


@dataclass(frozen=True)
class Part:
    """Matrices that are swept by turns, in chunks of whole numbers of ``unit`` outputs of each.

    ``factors``: one a matrix; of a chunk's outputs it has that many times as many (queries and keys of some KV heads).
    ``paired``: one drain takes a tile of each (gate and up); otherwise each tile is drained by itself.
    ``head_dim``: outputs are heads of that many dims, ``unit`` outputs each; 0: they aren't heads.
    """

    outputs: int
    unit: int
    factors: tuple[int, ...] = (1,)
    paired: bool = False
    head_dim: int = 0


@dataclass(frozen=True)
class Chain:
    """Matrices swept one after the other over one quantised vector of ``slices`` slices.

    What follows the chain waits for the last drain, so that the time to that is what matters.
    """

    parts: tuple[Part, ...]
    slices: int
    rows: int
    """As many as a pass of the model may have."""


def shortest_steps(params: DesignParams) -> int:
    """Steps below which a tile waits for its tables: a builder serves its rows one after the other."""
    return min(params.rows, params.rows_per_builder) * table_entries(params.group)


@lru_cache(maxsize=256)
def plan_chain(chain: Chain, params: DesignParams) -> tuple[tuple[int, ...], ...]:
    """Outputs of each part's chunks, chosen for passes of ``chain.rows`` rows and of one: the soonest end of both.

    Long first tiles give quantise time for all slices; what follows tapers, so that little is left to drain behind the
    last sweep. Raises ``ValueError`` when not even one unit fits a tile.
    """
    candidates = [list(_candidates(part, params)) for part in chain.parts]
    chosen = [plans[0] for plans in candidates]

    def cost() -> int:
        return sum(end_cycles(chosen, chain, rows, params) for rows in {chain.rows, 1})

    best = cost()
    for _ in range(ROUNDS if len(chosen) > 1 else 1):
        for n, plans in enumerate(candidates):
            kept = chosen[n]
            for plan in plans:
                chosen[n] = plan
                if (now := cost()) < best:
                    best, kept = now, plan
            chosen[n] = kept
    return tuple(chosen)


def chunk_tiles(part: Part, chunks: Sequence[int], params: DesignParams) -> list[list[list[Tile]]]:
    """Tiles, by chunk and by matrix of the part: one, or as many as it takes to fit."""
    firsts = [0] * len(part.factors)
    found: list[list[list[Tile]]] = []
    for chunk in chunks:
        found.append([])
        for n, factor in enumerate(part.factors):
            tiles = []
            for outputs in _pieces(factor * chunk, part.unit, params):
                tiles.append(Tile(firsts[n], outputs, -(-outputs // params.outputs)))
                firsts[n] += outputs
            found[-1].append(tiles)
    return found


def _largest(params: DesignParams) -> int:
    """Outputs of a tile at most: two must fit the drain ring."""
    return min(params.tile_steps, params.drain_steps // 2) * params.outputs


@lru_cache(maxsize=4096)
def _pieces(outputs: int, unit: int, params: DesignParams) -> tuple[int, ...]:
    """``outputs`` in as few tiles as they fit, of whole units and nearly alike."""
    units, largest = outputs // unit, _largest(params) // unit
    count = -(-units // largest)
    return tuple((units * (n + 1) // count - units * n // count) * unit for n in range(count))


def _candidates(part: Part, params: DesignParams) -> Iterator[tuple[int, ...]]:
    """Outputs of the chunks, in many ways: equal ones, and ever shorter ones. The first has the fewest."""
    units, largest = part.outputs // part.unit, _largest(params) // part.unit
    if not largest:
        raise ValueError(f"a unit of {part.unit} outputs doesn't fit a tile of {_largest(params)}")
    smallest = min(units, largest, -(-shortest_steps(params) * params.outputs // part.unit))
    fewest, seen = -(-units // largest), set()
    for count in range(fewest, max(fewest, min(MOST_TILES, units // smallest)) + 1):
        for ratio in RATIOS:
            plan = _shares(units, [ratio**n for n in range(count)], smallest, largest)
            if plan and plan not in seen:
                seen.add(plan)
                yield tuple(n * part.unit for n in plan)


def _shares(units: int, weights: list[float], smallest: int, largest: int) -> tuple[int, ...]:
    """``units`` in proportion to ``weights``, each ``smallest`` or more while that goes, and at most ``largest``.

    Nothing if that can't be.
    """
    shares, left, of = [], units, sum(weights)
    for n, weight in enumerate(weights):
        behind = len(weights) - n - 1
        share = max(smallest, min(largest, round(left * weight / of)), left - behind * largest)
        share = min(share, left - behind * smallest) if behind else left
        shares.append(share)
        left, of = left - share, of - weight
    return tuple(shares) if all(0 < share <= largest for share in shares) else ()


# ---- what a plan takes -----------------------------------------------------------------------------------------------


def end_cycles(plans: Sequence[Sequence[int]], chain: Chain, rows: int, params: DesignParams) -> int:
    """Cycles from the first quantised slice to the end of the last drain; codes always there."""
    slice_cycles = rows * -(-params.slice_elements // params.vector_lanes)
    builders = -(-params.rows // params.rows_per_builder)
    build = -(-rows // builders) * table_entries(params.group)
    swept = drained = 0
    ring: list[tuple[int, int]] = []  # (steps, when they are free) of tiles in the drain ring, oldest first
    is_first = True
    for part, plan in zip(chain.parts, plans):
        for chunk in plan:
            tiles = [outputs for factor in part.factors for outputs in _pieces(factor * chunk, part.unit, params)]
            undrained: list[int] = []
            for n, outputs in enumerate(tiles):
                steps = -(-outputs // params.outputs)
                per_slice = max(steps, build)
                last_slice = max(swept, build) + (chain.slices - 1) * per_slice
                if is_first:
                    last_slice = max(last_slice, chain.slices * slice_cycles + build)
                    is_first = False
                # The last slice's sums need their place in the ring.
                while sum(s for s, _ in ring) + sum(undrained) + steps > params.drain_steps or (
                        len(ring) + len(undrained) >= DRAIN_TILES):
                    if not ring:
                        return 1 << 60  # a pair that never fits
                    last_slice = max(last_slice, ring.pop(0)[1])
                swept = last_slice + per_slice
                undrained.append(steps)
                if not part.paired or n + 1 == len(tiles):
                    drained = max(drained, swept) + drain_cycles(part, outputs, rows, params)
                    ring += [(s, drained) for s in undrained]
                    undrained = []
    return drained


def drain_cycles(part: Part, outputs: int, rows: int, params: DesignParams) -> int:
    """Of one DRAIN command, its tile (or pair) being there."""
    lanes = params.vector_lanes
    words, reads = -(-outputs // lanes), -(-outputs // params.outputs)
    row = max(words, reads)
    if part.paired:
        row = 2 * row
    elif part.head_dim:
        row = max(row, outputs // part.unit * (round_up(part.head_dim, SEGMENT_BYTES) // lanes))
    return rows * (row + (2 if part.paired else 1)) + DRAIN_COMMAND_CYCLES
