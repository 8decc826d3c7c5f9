"""rtl/attention/attention_words.py: outputs of S dims at a time to words of W elements."""

import numpy as np
import pytest

from hls_py.golden.float32 import NAN
from hls_py.kernels.attention import attention_output
from hls_py.kernels.registry import KERNELS
from rtl.attention.attention_words import AttentionWords
from rtl.contract.number_formats import SEGMENT_BYTES, VECTOR_ALIGN, round_up
from sim_tests.blocks.test_softmax_path import design
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("segments, vector_lanes", [(1, 8), (2, 2), (8, 2), (16, 8)], cocotb=[(2, 2)])
def test_attention_words(simulation: SimulationClass, segments: int, vector_lanes: int, stall: float):
    rng = np.random.default_rng(bench_seed())
    params = design(segments, 2, vector_lanes, rows=3)
    S, W = segments, vector_lanes
    tiles, inputs, words = [], [], []
    for head_dim, rows, per_kv, kv_head in [(18, 3, 2, 1), (8, 1, 1, 5), (100, 2, 1, 0), (64, 1, 5, 3), (1, 2, 3, 40)]:
        n, dims, padded = rows * per_kv, round_up(head_dim, SEGMENT_BYTES), round_up(head_dim, VECTOR_ALIGN)
        o = rng.standard_normal((n, dims)).astype(np.float32)
        inverse = rng.random(n).astype(np.float32)
        started = rng.random(n) < 0.8
        o[~started], inverse[~started] = NAN, np.inf
        value = np.where(started[:, None], attention_output(o, inverse[:, None]), np.float32(0))
        value[:, head_dim:] = 0
        ends = int(head_dim in (100, 1))
        tiles.append({"row_vectors": n, "first_row": 3 - rows, "rows": rows, "queries_per_kv": per_kv,
                      "kv_head": kv_head, "head_dim": head_dim, "difference": 0, "groups_of_positions": 1,
                      "first_tile": 0, "last_tile": 1, "factor": 0, "row_words": 0, "statistics": 1, "has_norm": ends,
                      "gain_bank": rows & 1, "last_of_command": ends})
        inputs.append({"o": o.view(np.uint32).reshape(-1, S), "inverse": np.repeat(inverse.view(np.uint32), dims // S),
                       "started": np.repeat(started, dims // S).astype(int)})
        i, word = (x.reshape(-1) for x in np.mgrid[:n, :padded // W])
        last = np.zeros(len(i), np.int64)
        last[-1] = ends
        words.append({
            "row": 3 - rows + i // per_kv, "word": (kv_head * per_kv + i % per_kv) * (padded // W) + word,
            "data": np.ascontiguousarray(value[:, :padded]).view(np.uint32).reshape(-1, W),
            "statistics": np.ones_like(i), "has_norm": np.full_like(i, ends), "gain_bank": np.full_like(i, rows & 1),
            "last": last})

    def joined(parts):
        return {key: np.concatenate([np.atleast_1d(part[key]) for part in parts]) for key in parts[0]}

    expected = joined(words)
    run = simulation(AttentionWords(params, KERNELS)).simulator().run_streams(
        {"tile": joined(tiles), "i": joined(inputs)}, {"words": len(expected["row"])}, stall=stall, idle_cycles=20)
    for key, want in expected.items():
        np.testing.assert_array_equal(run.outputs["words"][key], want, f"{key}, stall {stall}, seed {bench_seed()}")
