"""rtl/int8_dot/dot_engine.py against its golden: sums with extremes, turns, backpressure, cycles."""

import numpy as np
import pytest

from hls_py.golden.int8_dot.dot_engine import Beat, dot_engine
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES
from rtl.int8_dot.dot_engine import DotEngine
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations

# (ports, port_bytes, A, max row-vectors, operand words): S = 1, 2, 4, 16
SIZES = [(1, 16, 2, 5, 23), (2, 16, 6, 20, 64), (4, 16, 4, 64, 300), (4, 64, 10, 11, 37)]
EXTREMES = np.array([-128, -127, -1, 0, 1, 127], np.int8)


def params(ports: int, port_bytes: int, row_vectors: int, max_row_vectors: int) -> DesignParams:
    return DesignParams(ports=ports, port_bytes=port_bytes, row_vectors=row_vectors, max_row_vectors=max_row_vectors,
                        tables=5, outputs=5, tile_steps=64, max_head_dim=128, drain_steps=128)


def random_bytes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random int8, in every other row extremes only."""
    values = rng.integers(-128, 128, shape).astype(np.int8)
    values[1::2] = rng.choice(EXTREMES, values[1::2].shape)
    return values


def random_operands(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The same without −128, some words at the extremes only."""
    operands = random_bytes(rng, shape)
    operands[::5] = rng.choice(np.array([-127, 127], np.int8), (len(operands[::5]), 1, 1))
    return np.maximum(operands, -127)


def random_sums(rng: np.random.Generator, p: DesignParams, operand_words: int, count: int) -> list[Beat]:
    """``count`` sums of 1 … 7 beats with any number of turns that the memories hold."""
    beats: list[Beat] = []
    for number in range(count):
        length = int(rng.integers(1, 8)) if number % 3 else 1
        most = min(operand_words, 64 if length == 1 else DotEngine(p, operand_words).accumulator_turns)
        turns = int(rng.integers(1, most + 1)) if number % 2 else 1
        stride = int(rng.integers(0, operand_words // turns + 1)) if turns > 1 else 7
        for n in range(length):
            operand = int(rng.integers(0, operand_words - (turns - 1) * stride))
            segments = random_bytes(rng, (p.segments, SEGMENT_BYTES))
            segments[rng.random(p.segments) < 0.2] = rng.choice(EXTREMES)
            beats.append(Beat(segments, operand, turns, stride,
                              n == 0, n == length - 1, int(rng.integers(1 << 16))))
    return beats


def write_fields(operands: np.ndarray, mask: np.ndarray | None = None) -> dict[str, np.ndarray]:
    words, lanes, _ = operands.shape
    data = np.array([int.from_bytes(row.tobytes(), "little") for row in operands.reshape(-1, SEGMENT_BYTES)], object)
    return {"address": np.repeat(np.arange(words), lanes), "lane": np.tile(np.arange(lanes), words),
            "mask": np.full(words * lanes, 0xFFFF) if mask is None else mask.reshape(-1), "data": data}


def beat_fields(beats: list[Beat]) -> dict[str, np.ndarray]:
    return {"data": np.array([int.from_bytes(b.segments.tobytes(), "little") for b in beats], object),
            "operand": np.array([b.operand for b in beats]), "turns": np.array([b.turns - 1 for b in beats]),
            "turn_stride": np.array([b.turn_stride for b in beats]), "first": np.array([b.first for b in beats]),
            "last": np.array([b.last for b in beats]), "tag": np.array([b.tag for b in beats])}


def check(got: dict, expected: list) -> None:
    np.testing.assert_array_equal(got["turn"], [r.turn for r in expected])
    np.testing.assert_array_equal(got["tag"], [r.tag for r in expected])
    dots = got["dots"].astype(np.uint32).view(np.int32)
    np.testing.assert_array_equal(dots, np.stack([r.dots for r in expected]))


@simulations("sizes", SIZES, cocotb=SIZES[:1])
def test_equals_golden(simulation: SimulationClass, sizes: tuple[int, int, int, int, int]):
    p, words = params(*sizes[:4]), sizes[4]
    rng = np.random.default_rng(bench_seed())
    compiled = simulation(DotEngine(p, words))
    operands = random_operands(rng, (words, p.row_vectors, SEGMENT_BYTES))
    beats = random_sums(rng, p, words, 120)
    expected = dot_engine(operands, beats)
    for stall in (0.0, {"beats": 0.3}, {"results": 0.7}, {"beats": 0.4, "results": 0.4}):
        simulator = compiled.simulator()
        simulator.run_streams({"operand_write": write_fields(operands)}, {})
        run = simulator.run_streams({"beats": beat_fields(beats)}, {"results": len(expected)}, stall=stall,
                                    idle_cycles=20)
        check(run.outputs["results"], expected)
        if not stall:
            cycles = sum(DotEngine.interval_cycles(1, b.turns) for b in beats)
            assert run.cycles == cycles + DotEngine.latency_cycles
            assert run.transfer_cycles["results"][0] == DotEngine.latency_cycles


@simulations()
def test_masked_writes_keep_other_bytes(simulation: SimulationClass):
    p = params(2, 16, 4, 8)
    rng = np.random.default_rng(bench_seed())
    simulator = simulation(DotEngine(p, 9)).simulator()
    before, after = (random_operands(rng, (9, 4, SEGMENT_BYTES)) for _ in range(2))
    mask = rng.integers(0, 1 << 16, (9, 4))
    chosen = (mask[..., None] >> np.arange(SEGMENT_BYTES) & 1).astype(bool)
    beats = [Beat(random_bytes(rng, (2, SEGMENT_BYTES)), w, 1, 0, True, True, w) for w in range(9)]
    simulator.run_streams({"operand_write": write_fields(before)}, {})
    simulator.run_streams({"operand_write": write_fields(after, mask)}, {})
    run = simulator.run_streams({"beats": beat_fields(beats)}, {"results": 9})
    check(run.outputs["results"], dot_engine(np.where(chosen, after, before), beats))


@pytest.mark.parametrize("words", [0, 4097])
def test_refuses_impossible_operand_words(words: int):
    with pytest.raises(ValueError, match="operand_words"):
        DotEngine(params(2, 16, 4, 8), words)
