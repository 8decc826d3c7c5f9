"""rtl/vector_unit: gain_memory and statistics (with partial_sums) against golden."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hls_py.golden.vector_unit.statistics import norm_statistics_fold
from hls_py.kernels.registry import KERNELS
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes
from rtl.vector_unit.gain_memory import GainMemory
from rtl.vector_unit.statistics import FOLD, Statistics, statistics_word
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

LARGEST = np.float32(3.0e38)


class Bench(wiring.Component):
    """Statistics with the gain memory that it reads."""

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "gains": In(stream.Signature(shapes.beat(params))), "words": In(stream.Signature(statistics_word(params))),
            "fold": In(stream.Signature(FOLD)), "rows": In(bits_for(params.rows)), "release": In(2), "full": Out(2),
            "row": In(shapes.row_bits(params)), "sum_squares": Out(32), "absmax": Out(32), "empty": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = GainMemory(self.params)
        m.submodules.statistics = statistics = Statistics(self.params, KERNELS)
        connect(m, flipped(self.gains), memory.gains)
        connect(m, flipped(self.words), statistics.words)
        connect(m, flipped(self.fold), statistics.fold)
        connect(m, statistics.gains, memory.statistics)
        m.d.comb += [
            statistics.rows.eq(self.rows), statistics.row.eq(self.row), statistics.gain_full.eq(memory.full),
            memory.release.eq(self.release), self.full.eq(memory.full), self.sum_squares.eq(statistics.sum_squares),
            self.absmax.eq(statistics.absmax), self.empty.eq(statistics.empty),
        ]
        return m


def params_of(lanes: int, rows: int, beat_bytes: int) -> DesignParams:
    return DesignParams(rows=rows, tables=1, outputs=5, vector_lanes=lanes, ports=1, port_bytes=beat_bytes,
                        max_hidden=48, max_inner=168)


@cache
def compiled(simulation: SimulationClass, lanes: int, rows: int, beat_bytes: int) -> Simulation:
    return simulation(Bench(params_of(lanes, rows, beat_bytes)), f"statistics_bench_{lanes}_{rows}_{beat_bytes}")


def gain_beats(params: DesignParams, gain: np.ndarray, bank: int) -> dict[str, np.ndarray]:
    """Beats of one GAINS record."""
    floats = params.beat_bytes // 4
    padded = np.pad(gain, (0, -len(gain) % floats)).astype(np.float32).reshape(-1, floats)
    last = np.arange(len(padded)) == len(padded) - 1
    data = np.array([int.from_bytes(beat.tobytes(), "little") for beat in padded], object)
    return {"data": data, "first": np.arange(len(padded)) == 0, "last": last, "bank": np.full(len(padded), bank)}


def word_fields(x: np.ndarray, lanes: int, has_norm: bool, bank: int, cuts: int, seed: int) -> dict[str, np.ndarray]:
    """Words of rows x [R, K], cut like tiles: some words of every row, then the next ones of every row."""
    rows, words = x.shape[0], x.shape[1] // lanes
    rng = np.random.default_rng(seed)
    edges = [0, *sorted(rng.choice(np.arange(1, words), min(cuts, words - 1), replace=False).tolist()), words]
    order = [(r, w) for a, b in pairwise(edges) for r in range(rows) for w in range(a, b)]
    row, word = (np.array(column) for column in zip(*order))
    n = len(order)
    return {"row": row, "word": word, "has_norm": np.full(n, int(has_norm)), "gain_bank": np.full(n, bank),
            "data": x.reshape(rows, words, lanes)[row, word].view(np.uint32)}


def float_of(bits: int) -> float:
    return float(np.array(bits, np.uint32).view(np.float32)[()])


@simulations("lanes, rows, beat_bytes", [(4, 3, 16), (8, 1, 16), (2, 4, 32), (8, 4, 32)], cocotb=[(4, 3, 16)])
def test_statistics(simulation: SimulationClass, lanes: int, rows: int, beat_bytes: int):
    params = params_of(lanes, rows, beat_bytes)
    seed = bench_seed()
    rng = np.random.default_rng(seed)
    sim = compiled(simulation, lanes, rows, beat_bytes).simulator()
    bank = 0
    for length, has_norm, stall in [(24, True, 0.0), (136, True, 0.4), (8, False, 0.0), (64, True, 0.4),
                                    (328, True, 0.0), (200, False, 0.3), (72, True, 0.2)]:
        running = int(rng.integers(1, rows + 1))
        x = rng.normal(size=(running, length)).astype(np.float32)
        x *= np.float32(10) ** rng.integers(-6, 6, x.shape).astype(np.float32)
        if stall:
            x.reshape(-1)[rng.choice(x.size, 5)] = np.array([np.inf, np.nan, LARGEST, 1e-40, -0.0], np.float32)
        gain = rng.normal(size=length).astype(np.float32)
        sim.set("rows", running)
        inputs = {"words": word_fields(x, lanes, has_norm, bank, 3, seed)}
        if has_norm:
            inputs["gains"] = gain_beats(params, gain, bank)  # comes while words wait for it
        sim.run_streams(inputs, {}, stall=stall)
        words = length // lanes
        if not stall:
            while not sim.get("empty"):
                sim.step(1)
            sim.step(4)
        run = sim.run_streams({"fold": {"words": [words], "sums": [int(has_norm)]}}, {})
        if not stall and has_norm:
            assert run.transfer_cycles["fold"][0] + 1 == Statistics.fold_cycles(lanes, running)
        sums, absmax = norm_statistics_fold(x, gain if has_norm else None)
        for r in range(running):
            sim.set("row", r)
            if has_norm:
                np.testing.assert_equal(float_of(sim.get("sum_squares")), sums[r], f"{length} {r} {seed}")
            np.testing.assert_equal(float_of(sim.get("absmax")), absmax[r], f"{length} {r} {seed}")
        if has_norm:
            assert sim.get("full") == 1 << bank
            sim.set("release", 1 << bank)
            sim.step(1)
            sim.set("release", 0)
            assert sim.get("full") == 0
            bank ^= 1


@simulations("lanes, rows, beat_bytes", [(4, 3, 16), (8, 4, 32)], cocotb=[(4, 3, 16)])
def test_a_word_every_cycle(simulation: SimulationClass, lanes: int, rows: int, beat_bytes: int):
    sim = compiled(simulation, lanes, rows, beat_bytes).simulator()
    for running in (1, rows):
        x = np.ones((running, 328), np.float32)
        sim.set("rows", running)
        run = sim.run_streams({"words": word_fields(x, lanes, False, 0, 0, 1)}, {})
        assert run.cycles == x.size // lanes
        sim.run_streams({"fold": {"words": [328 // lanes], "sums": [0]}}, {})


@simulations("lanes, rows, beat_bytes", [(8, 1, 16)], cocotb=[(4, 3, 16)])
def test_gains_wait_for_their_bank(simulation: SimulationClass, lanes: int, rows: int, beat_bytes: int):
    params = params_of(lanes, rows, beat_bytes)
    sim = compiled(simulation, lanes, rows, beat_bytes).simulator()
    gain = np.arange(24, dtype=np.float32)
    sim.run_streams({"gains": gain_beats(params, gain, 1)}, {})
    sim.run_streams({"gains": gain_beats(params, gain, 0)}, {})
    sim.step(5)
    assert sim.get("full") == 3
    with pytest.raises(AssertionError, match="not done"):
        sim.run_streams({"gains": gain_beats(params, gain, 1)}, {}, max_cycles=200)
