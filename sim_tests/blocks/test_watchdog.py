"""rtl/control/watchdog.py: bites after exactly ``limit`` still cycles, of everything or of one channel."""

import random

import numpy as np
import pytest

from rtl.control.watchdog import Watchdog
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.cocotb_simulation import CocotbSimulation
from sim_tests.harness.fast import VerilatedLibrary


def golden(running: np.ndarray, progress: np.ndarray, owes: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """(bites [n], silent [n, channels]) by the ``limit`` cycles before each one."""
    still = np.concatenate([~progress[:, None], owes], axis=1).astype(bool) & running[:, None].astype(bool)
    expired = np.zeros_like(still)
    run = np.zeros(still.shape[1], int)
    for n, now in enumerate(still):
        expired[n] = (run >= limit) & bool(running[n]) & (limit > 0)
        run = np.where(now, run + 1, 0)
    return expired.any(axis=1), expired[:, 1:] | (expired[:, :1] & owes)


@pytest.mark.parametrize("simulation, channels, limit, cycles", [
    (VerilatedLibrary, 1, 1, 3000), (VerilatedLibrary, 4, 7, 3000), (VerilatedLibrary, 8, 40, 6000),
    (VerilatedLibrary, 2, 0, 500), (CocotbSimulation, 2, 7, 400)])
def test_watchdog(simulation, channels: int, limit: int, cycles: int):
    rng = random.Random(bench_seed())
    quiet = 1 - 1 / (limit + 2)  # often long enough, often not

    def stretches(likely: float) -> np.ndarray:
        return np.array([rng.random() < likely for _ in range(cycles)])

    running, progress = stretches(1 - 0.1 / (limit + 1)), stretches(1 - quiet)
    owes = np.stack([stretches(quiet) for _ in range(channels)], axis=1)
    sim = simulation(Watchdog(channels)).simulator()
    sim.set("limit", limit)
    found = sim.run_vectors({"running": running.astype(int), "progress": progress.astype(int),
                             "owes": owes.astype(int)}, ["bites", "silent"])
    bites, silent = golden(running, progress, owes, limit)
    assert bites.any() == (limit > 0)
    np.testing.assert_array_equal(found["bites"], bites)
    np.testing.assert_array_equal(found["silent"], silent)
