"""rtl/attention/row_reduction.py: maximum in IEEE order and integer sum of rows of words."""

import numpy as np
import pytest

from hls_py.golden.attention.softmax import largest_visible
from rtl.attention.row_reduction import RowReduction
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations

SPECIALS = np.array([0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x3F800000, 0xBF800000, 0x00800000], np.uint32)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("lanes, addend_bits, total_bits", [(1, 0, 0), (3, 21, 28), (4, 7, 14), (16, 21, 28)], cocotb=[(3, 21, 28)])
def test_row_reduction(simulation: SimulationClass, lanes: int, addend_bits: int, total_bits: int, stall: float):
    rng = np.random.default_rng(bench_seed())
    words = rng.integers(1, 9, 300)  # of each row
    ends = np.cumsum(words)
    count = int(ends[-1])
    row = np.repeat(np.arange(len(words)), words)
    bits = np.where(rng.random((count, lanes)) < 0.5, rng.choice(SPECIALS, (count, lanes)),
                    rng.standard_normal((count, lanes)).astype(np.float32).view(np.uint32)).astype(np.uint32)
    bits[rng.random(count) < 0.3] |= np.uint32(1 << 31)  # rows that are negative throughout
    bits[(bits & 0x7FFFFFFF) > 0x7F800000] = 0x7FC00000
    visible = rng.random((count, lanes)) < rng.choice([0, 0.1, 1], len(words))[row, None]
    addends = rng.integers(0, 1 << addend_bits, (count, lanes))
    if addend_bits:
        addends[row < 3] = (1 << addend_bits) - 1
    first, last = np.zeros((2, count), np.int64)
    last[ends - 1], first[ends - words] = 1, 1

    component = RowReduction(lanes, addend_bits, total_bits)
    run = simulation(component).simulator().run_streams(
        {"i": {"first": first, "last": last, "visible": (visible << np.arange(lanes)).sum(axis=1), "value": bits,
               "addend": addends}}, {"o": len(words)}, stall=stall, idle_cycles=10)
    for n in range(len(words)):
        part = row == n
        seen = visible[part].any()
        want = largest_visible(bits[part].reshape(1, -1).view(np.float32), visible[part].reshape(1, -1))
        where = f"row {n}, stall {stall}, seed {bench_seed()}"
        assert run.outputs["o"]["maximum"][n] == want.view(np.uint32)[0], where
        assert run.outputs["o"]["seen"][n] == seen, where
        if addend_bits:
            assert run.outputs["o"]["total"][n] == addends[part][visible[part]].sum(), where
    if not stall:
        assert run.transfer_cycles["o"][0] == words[0] - 1 + component.latency_cycles
        assert run.cycles == count + component.latency_cycles
