"""rtl/attention/kv_writer.py, behind the newest K/V and its block lists: requests, bytes, strobes."""

from functools import cache

import numpy as np
import pytest

from hls_py.golden.attention.kv_writer import tile_writes, written_bytes, written_tiles
from hls_py.golden.machine.kv_cache import pack_tile, unpack_tile
from rtl.attention.attention_feed import AttentionFeed
from sim_tests.blocks.attention_cases import Case, DesignSizes, ModelSizes, params
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations


@cache
def compiled(simulation: SimulationClass, design: DesignSizes) -> Simulation:
    return simulation(AttentionFeed(params(*design)))


def write_streams(case: Case) -> tuple[dict, dict, list[tuple[int, int]]]:
    """Inputs and output counts of a KV_WRITE, and its requests (beat, beats)."""
    requests = [(case.tile_beat(case.block_of(tile), tile.kv_head) + first, beats)
                for tile in written_tiles(case.groups, case.kv_heads) for first, beats in tile_writes(tile,
                    case.layout)]
    inputs = {"kv_write_command": np.array([case.write_command()], object),
              "kv_list_data": np.array(case.list_words(written_only=True))}
    outputs = {"kv_write_request": len(requests), "kv_write_data": sum(beats for _, beats in requests),
               "kv_list_request": len(case.list_requests(written_only=True))}
    return inputs, outputs, requests


def check_writes(case: Case, got: dict, requests: list[tuple[int, int]]) -> None:
    """Requests in order; memory afterwards holds the new positions and is otherwise as before, byte by byte."""
    assert list(zip(got["kv_list_request"]["address"], got["kv_list_request"]["words"])) \
        == case.list_requests(written_only=True)
    assert list(zip(got["kv_write_request"]["beat"], got["kv_write_request"]["beats"])) == requests
    size = case.layout.beat_bytes
    after = {key: raw.copy() for key, raw in case.memory.items()}
    touched = {key: np.zeros(raw.shape, bool) for key, raw in case.memory.items()}
    place = {case.tile_beat(block, head) + beat: (block, head, beat)
             for block, head in case.memory for beat in range(case.layout.tile_beats)}
    words = iter(zip(got["kv_write_data"]["data"], got["kv_write_data"]["strobe"]))
    for first, beats in requests:
        for beat, (word, strobe) in zip(range(first, first + beats), words):
            block, head, n = place[beat]
            lanes = np.array([int(strobe) >> b & 1 for b in range(size)], bool)
            after[block, head][n][lanes] = np.frombuffer(int(word).to_bytes(size, "little"), np.uint8)[lanes]
            touched[block, head][n] |= lanes

    for tile in written_tiles(case.groups, case.kv_heads):
        key = case.block_of(tile), tile.kv_head
        np.testing.assert_array_equal(touched.pop(key), written_bytes(tile, case.layout))
        wanted, wholly = unpack_tile(case.memory[key].copy(), case.layout), case.tile_arrays(tile)
        for stored, new in zip((wanted.keys, wanted.values, wanted.key_scales, wanted.value_scales), wholly):
            stored[:tile.positions] = new
        np.testing.assert_array_equal(after[key], pack_tile(wanted, case.layout))
    assert not any(mask.any() for mask in touched.values())


# (ports, port_bytes, A, P, W), (KV heads, queries per KV head, head_dim), [(rows, past) …]
CASES = [
    ((1, 16, 2, 3, 2), (2, 1, 18), [(3, 0)]),
    ((1, 16, 2, 3, 2), (1, 1, 64), [(1, 127), (2, 126)]),
    ((2, 16, 6, 4, 4), (2, 2, 100), [(2, 127), (1, 300), (1, 0)]),
    ((4, 16, 4, 16, 4), (3, 1, 96), [(9, 120), (1, 128), (3, 5), (1, 0)]),
    ((4, 16, 4, 16, 4), (5, 1, 32), [(16, 57)]),
]


@pytest.mark.parametrize("stall", [0.0, 0.5])
@simulations("design, model, sizes", CASES, cocotb=CASES[:1])
def test_writes(simulation: SimulationClass, design: DesignSizes, model: ModelSizes, sizes: list, stall: float):
    simulator = compiled(simulation, design).simulator()
    for n in range(2):
        case = Case(params(*design), *model, sizes, seed=bench_seed() + n, shared_lists=n == 1)
        case.set_pass_state(simulator)
        simulator.run_streams(case.head_streams(), {}, stall=stall)
        inputs, outputs, requests = write_streams(case)
        run = simulator.run_streams(inputs, outputs, stall=stall, idle_cycles=30)
        check_writes(case, run.outputs, requests)
        simulator.set("kv_write_idle", 1)
        assert simulator.get("kv_write_busy") == 0
        simulator.set("kv_write_idle", 0)
        assert simulator.get("kv_write_busy") == 1
