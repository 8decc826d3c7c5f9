"""rtl/head/top_k.py against its golden."""

import numpy as np
import pytest

from hls_py.golden.head.logits import top_k
from rtl.head.top_k import TopK
from sim_tests.blocks.test_argmax import alternation, random_rows
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("rows, capacity", [(1, 1), (3, 5), (4, 64)], cocotb=[(3, 5)])
def test_top_k(simulation: SimulationClass, rows: int, capacity: int, stall: float):
    sim = simulation(TopK(rows, capacity)).simulator()
    for k in sorted({1, capacity // 2 or 1, capacity}):
        for logits in (k, 3 * k + 7):
            seed = bench_seed() + k + logits
            rng = np.random.default_rng(seed)
            values = random_rows(rows, logits, seed) if logits % 2 else rng.normal(size=(rows,
                logits)).astype(np.float32)
            row, index = alternation(rows, logits, seed)
            sim.set("k", k)
            sim.set("clear", 1)
            sim.step()
            sim.set("clear", 0)
            bits = values.view(np.uint32)
            sim.run_streams({"logits": {"row": row, "index": index, "bits": bits[row, index]}}, {}, stall=stall)
            for r in range(rows):
                while not sim.get("idle"):
                    sim.step()
                sim.set("read_row", r)
                sim.set("read", 1)
                sim.step()
                sim.set("read", 0)
                got = sim.run_streams({}, {"entries": k}, stall=stall, idle_cycles=5).outputs["entries"]
                expected = top_k(values[r], k)
                assert sorted(got["index"].tolist()) == sorted(expected.tolist()), f"seed {seed}, row {r}, k {k}"
                np.testing.assert_array_equal(got["bits"], bits[r, got["index"]])


@pytest.mark.parametrize("capacity", [0, 257])
def test_refuses_impossible_capacity(capacity: int):
    with pytest.raises(ValueError, match="capacity"):
        TopK(4, capacity)
