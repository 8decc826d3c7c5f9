"""rtl/head/argmax.py against its golden: values with ties and specials, rows in any alternation."""

import numpy as np
import pytest

from hls_py.golden.head.argmax import argmax
from rtl.head.argmax import Argmax
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations

SPECIALS = np.array([0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x00000001, 0x3F800000], np.uint32)


def random_rows(rows: int, logits: int, seed: int) -> np.ndarray:
    """[rows, logits] float32 in which ties and special values are common."""
    rng = np.random.default_rng(seed)
    bits = rng.choice(np.concatenate([SPECIALS, rng.integers(0, 2**32, 9, np.uint32)]), (rows, logits))
    values = bits.astype(np.uint32).view(np.float32)
    return np.where(np.isnan(values), np.array(0x7FC00000, np.uint32).view(np.float32), values)


def alternation(rows: int, logits: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, index) of every logit, rows interleaved at random, a row's indices rising."""
    order = np.random.default_rng(seed).permutation(np.repeat(np.arange(rows), logits))
    index = np.empty(len(order), np.int64)
    for row in range(rows):
        index[order == row] = np.arange(logits)
    return order, index


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("rows, logits", [(1, 1), (3, 33), (16, 301)], cocotb=[(3, 33)])
def test_argmax(simulation: SimulationClass, rows: int, logits: int, stall: float):
    sim = simulation(Argmax(rows)).simulator()
    for round_ in range(3):
        seed = bench_seed() + round_
        values = random_rows(rows, logits, seed)
        row, index = alternation(rows, logits, seed)
        sim.set("clear", 1)
        sim.step()
        sim.set("clear", 0)
        bits = values.view(np.uint32)
        run = sim.run_streams({"logits": {"row": row, "index": index, "bits": bits[row, index]}}, {}, stall=stall)
        if not stall:
            assert run.cycles == rows * logits
        for r, expected in enumerate(argmax(values)):
            sim.set("best_row", r)
            sim.step()
            best = sim.get("best")
            assert (best["index"], best["bits"]) == (expected, bits[r, expected]), f"seed {seed}, row {r}"


@pytest.mark.parametrize("rows", [0, 33])
def test_refuses_impossible_rows(rows: int):
    with pytest.raises(ValueError, match="rows"):
        Argmax(rows)
