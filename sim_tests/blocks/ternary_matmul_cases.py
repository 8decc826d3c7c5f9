"""Workloads of the ternary engine: designs, tiles, the streams that carry them and the sums that must come out."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hls_py.golden.ternary_matmul.encoding import encode_tile
from hls_py.golden.ternary_matmul.engine import matmul
from rtl.contract.command_words import TILE, Opcode
from rtl.contract.design_params import DesignParams

SMALL: dict[str, Any] = dict(max_hidden=64, max_head_dim=16, max_kv_width=64)
DESIGNS: dict[str, dict[str, Any]] = {
    "five_bit_t7_q3": dict(rows=4, tables=7, outputs=3, ports=1, port_bytes=16, rows_per_builder=4,
                           max_inner=200, tile_steps=60, drain_steps=131),
    "dense_g4_t5_q3": dict(rows=3, tables=5, outputs=3, group=4, encoding="dense", ports=1, port_bytes=16,
                           rows_per_builder=2, max_inner=190, tile_steps=70, drain_steps=145),
    "dense_g2_t13_q4": dict(rows=1, tables=13, outputs=4, group=2, encoding="dense", ports=2, port_bytes=16,
                            rows_per_builder=1, max_inner=300, tile_steps=33, drain_steps=66),
    "five_bit_t20_q5": dict(rows=5, tables=20, outputs=5, ports=4, port_bytes=16, rows_per_builder=2,
                            max_inner=500, tile_steps=40, drain_steps=80),
    "dense_g3_t26_q4": dict(rows=5, tables=26, outputs=4, encoding="dense", ports=2, port_bytes=32, rows_per_builder=1,
                            max_inner=600, tile_steps=36, drain_steps=77),
    "five_bit_t1_q1": dict(rows=2, tables=1, outputs=1, ports=1, port_bytes=16, rows_per_builder=1,
                           max_inner=64, tile_steps=30, drain_steps=60),
}


def design(name: str) -> DesignParams:
    return DesignParams(**SMALL | DESIGNS[name])


@dataclass
class Tile:
    buffer: int
    slices: int
    steps: int
    weights: np.ndarray  # [N, K]
    activations: np.ndarray  # [R, K]
    fills: bool  # first tile of its activations
    release: bool  # last tile of its activations

    def beats(self, params: DesignParams) -> bytes:
        return encode_tile(self.weights, params, self.steps)

    def sums(self, params: DesignParams) -> np.ndarray:
        """[R, steps·Q] int32."""
        return matmul(self.beats(params), params, self.slices, self.steps, self.activations)


def random_tiles(params: DesignParams, rows: int, fills: int, rng: np.random.Generator, max_steps: int | None = None,
                 max_slices: int = 5) -> list[Tile]:
    """Tiles on ``fills`` alternating activation buffers; lengths, extremes and remainders of every kind."""
    tiles = []
    most = min(max_slices, params.activation_words // rows)
    for fill in range(fills):
        slices = int(rng.integers(1, most + 1))
        inputs = int(rng.integers((slices - 1) * params.slice_elements + 1, slices * params.slice_elements + 1))
        count = int(rng.integers(1, 4))
        activations = numbers(rng, (rows, inputs), -127, 127)
        for n in range(count):
            steps = int(rng.choice([1, 2, 3, int(rng.integers(1, (max_steps or params.tile_steps) + 1))]))
            outputs = int(rng.integers((steps - 1) * params.outputs + 1, steps * params.outputs + 1))
            tiles.append(Tile(fill % 2, slices, steps, numbers(rng, (outputs, inputs), -1, 1), activations,
                              fills=n == 0, release=n == count - 1))
    return tiles


def numbers(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """int8: random ones, or only extremes, or one extreme everywhere."""
    kind = rng.integers(4)
    if kind == 0:
        return np.full(shape, rng.choice([low, high]), np.int8)
    if kind == 1:
        return rng.choice([low, high], shape).astype(np.int8)
    return rng.integers(low, high + 1, shape).astype(np.int8)


def command_word(tile: Tile) -> int:
    return TILE.pack_int(opcode=Opcode.TILE, activation=tile.buffer, release=int(tile.release), steps=tile.steps,
                         slices=tile.slices)


def code_fields(params: DesignParams, tiles: list[Tile]) -> dict[str, np.ndarray]:
    """Payloads of the ``codes`` stream: one record a tile."""
    words, first, last = [], [], []
    for tile in tiles:
        raw, size = tile.beats(params), params.beat_bytes
        count = len(raw) // size
        words += [int.from_bytes(raw[n * size:(n + 1) * size], "little") for n in range(count)]
        first += [1] + [0] * (count - 1)
        last += [0] * (count - 1) + [1]
    return {"data": np.array(words, object), "first": np.array(first), "last": np.array(last),
            "bank": np.zeros(len(last), int)}


def activation_fields(params: DesignParams, tiles: list[Tile]) -> dict[str, np.ndarray]:
    """Payloads of the ``activation`` stream for every buffer that the tiles read."""
    fields: dict[str, list] = {"buffer": [], "slice": [], "row": [], "data": []}
    for tile in tiles:
        if not tile.fills:
            continue
        rows, inputs = tile.activations.shape
        padded = np.zeros((rows, tile.slices, params.slice_elements), np.int8)
        padded.reshape(rows, -1)[:, :inputs] = tile.activations
        for k in range(tile.slices):
            for r in range(rows):
                fields["buffer"].append(tile.buffer)
                fields["slice"].append(k)
                fields["row"].append(r)
                fields["data"].append(int.from_bytes(padded[r, k].tobytes(), "little"))
    return {name: np.array(values, object if name == "data" else np.int64) for name, values in fields.items()}
