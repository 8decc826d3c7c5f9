"""rtl/control/counters.py: what is read is exact in every cycle, whenever it is asked for, cleared or held."""

import numpy as np
import pytest

from rtl.contract.register_map import Counter
from rtl.control.counters import Counters
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.cocotb_simulation import CocotbSimulation
from sim_tests.harness.fast import VerilatedLibrary


@pytest.mark.parametrize("simulation, likely, cycles", [
    (VerilatedLibrary, 1.0, 4000), (VerilatedLibrary, 0.5, 4000), (VerilatedLibrary, 0.02, 4000),
    (CocotbSimulation, 0.5, 400)])
@pytest.mark.parametrize("asking", ["at random", "always"])
def test_counters(simulation, likely: float, cycles: int, asking: str):
    rng = np.random.default_rng(bench_seed())
    events = rng.random((cycles, len(Counter))) < likely
    running, clear = rng.random(cycles) < 0.9, rng.random(cycles) < 0.002
    asked = np.arange(cycles) % 2 == 0  # as often as is allowed
    if asking == "at random":
        asked &= rng.random(cycles) < 0.1
    number = rng.integers(0, len(Counter), cycles) if asking == "at random" else np.zeros(cycles, int)

    counts = np.zeros(len(Counter), int)
    expected = np.zeros(cycles, int)
    for n in range(cycles):
        expected[n] = counts[number[n]]
        counts = np.zeros_like(counts) if clear[n] else counts + (events[n] & running[n])
    found = simulation(Counters()).simulator().run_vectors({
        "running": running.astype(int), "clear": clear.astype(int), "asked": asked.astype(int), "number": number,
        "events": events @ (1 << np.arange(len(Counter)))}, ["value"])["value"]
    assert asked.any()
    np.testing.assert_array_equal(found[asked], expected[asked])
