"""rtl/streams/gearbox.py: order, padding, framing, stalls, cycles."""

import numpy as np
import pytest

from rtl.streams.gearbox import Gearbox
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

BITS = 21


def words_of(rows: list[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(elements [words, size] with zeros beyond a row, count, last) of all rows one after another."""
    data, count, last = [], [], []
    for row in rows:
        for start in range(0, len(row), size):
            piece = row[start:start + size]
            data.append(np.pad(piece, (0, size - len(piece))))
            count.append(len(piece))
            last.append(start + size >= len(row))
    return np.array(data), np.array(count), np.array(last).astype(int)


def run(compiled: Simulation, inputs: int, outputs: int, lengths: list[int], stall: float):
    rng = np.random.default_rng(bench_seed())
    rows = [rng.integers(0, 1 << BITS, n) for n in lengths]
    data, count, last = words_of(rows, inputs)
    garbage = rng.integers(0, 1 << BITS, data.shape)
    data = np.where(np.arange(inputs) < count[:, None], data, garbage)
    expected, _, expected_last = words_of(rows, outputs)
    result = compiled.simulator().run_streams({"i": {"data": data, "count": count, "last": last}},
                                              {"o": len(expected)}, stall=stall, idle_cycles=5)
    np.testing.assert_array_equal(result.outputs["o"]["data"], expected)
    np.testing.assert_array_equal(result.outputs["o"]["last"], expected_last)
    return result


@simulations("inputs, outputs", [(5, 4), (3, 8), (4, 4), (7, 2), (1, 8), (6, 4)], cocotb=[(5, 4)])
def test_gearbox(simulation: SimulationClass, inputs: int, outputs: int):
    gearbox = Gearbox(BITS, inputs, outputs)
    compiled = simulation(gearbox)
    lengths = [1, 2, 40, 8, 16, 17, 3, 24, 64, 5]
    for stall in (0.0, 0.4):
        run(compiled, inputs, outputs, lengths, stall)
    for length in (8, 40, 17):
        result = run(compiled, inputs, outputs, [length] * 20, 0.0)
        ends = result.transfer_cycles["o"][-(-length // outputs) - 1::-(-length // outputs)]
        np.testing.assert_array_equal(np.diff(ends), gearbox.interval_cycles(length))
        assert ends[-1] - result.transfer_cycles["i"][-1] >= gearbox.latency_cycles


@pytest.mark.parametrize("arguments, name",
                         [((0, 1, 1), "element_bits"), ((1, 0, 1), "inputs"), ((1, 1, 0), "outputs")])
def test_refuses_impossible_sizes(arguments: tuple[int, int, int], name: str):
    with pytest.raises(ValueError, match=name):
        Gearbox(*arguments)
