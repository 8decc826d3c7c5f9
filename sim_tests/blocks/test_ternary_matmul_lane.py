"""rtl/ternary_matmul/table_builder.py and lane.py, each against the sums it stands for."""

import numpy as np
import pytest

from rtl.contract.design_params import DesignParams
from rtl.contract.weight_encodings import balanced_digits, decode_group, table_entries
from rtl.ternary_matmul.lane import Lane, entry_offset
from rtl.ternary_matmul.table_builder import TableBuilder, build_order
from sim_tests.blocks.ternary_matmul_cases import design, numbers
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations

NAMES = ["five_bit_t7_q3", "dense_g4_t5_q3", "dense_g2_t13_q4", "five_bit_t1_q1"]


def tables_of(params: DesignParams, activations: np.ndarray) -> np.ndarray:
    """[T, entries] of activations [T·G]."""
    digits = np.array([balanced_digits(e, params.group) for e in range(table_entries(params.group))])
    return activations.reshape(params.tables, params.group).astype(int) @ digits.T


def fields(word: int, width: int, count: int) -> np.ndarray:
    return np.array([word >> width * n & (1 << width) - 1 for n in range(count)])


def pack_fields(values: np.ndarray, width: int) -> int:
    return sum((int(v) & (1 << width) - 1) << width * n for n, v in enumerate(values))


@pytest.mark.parametrize("group", [2, 3, 4])
def test_build_order_is_a_walk_over_every_entry(group: int):
    digits = np.zeros(group, int)
    seen = []
    for entry, activation, subtract in build_order(group):
        digits[activation] += -1 if subtract else 1
        assert tuple(digits) == balanced_digits(entry, group)
        seen.append(entry)
    assert sorted(seen) == list(range(1, table_entries(group)))


@simulations("name", NAMES, cocotb=NAMES[:1])
def test_builder(simulation: SimulationClass, name: str):
    params = design(name)
    rng = np.random.default_rng(bench_seed())
    build = TableBuilder.build_cycles(params.group)
    gaps = [build] * 4 + [build + 1, build + 7, build]  # without a gap, and with
    starts = np.cumsum([3, *gaps])
    cycles = int(starts[-1]) + build + 10
    rows = [numbers(rng, (params.slice_elements,), -127, 127) for _ in starts]
    turns, banks = rng.integers(0, params.rows_per_builder, len(starts)), rng.integers(0, 2, len(starts))
    inputs = {"load": np.zeros(cycles, int), "turn": rng.integers(0, params.rows_per_builder, cycles),
              "bank": rng.integers(0, 2, cycles), "activations": np.array([0xA5] * cycles, object)}
    for start, row, turn, bank in zip(starts, rows, turns, banks):
        for port, value in (("load", 1), ("turn", turn), ("bank", bank),
                            ("activations", int.from_bytes(row.tobytes(), "little"))):
            inputs[port][start] = value
    run = simulation(TableBuilder(params)).simulator().run_vectors(inputs, ["enable", "address", "data"])

    written = np.zeros(cycles, bool)
    for start, row, turn, bank in zip(starts, rows, turns, banks):
        seen = {}
        for n in range(start + TableBuilder.first_write_cycles, start + TableBuilder.first_write_cycles + build):
            written[n] = True
            assert run["enable"][n] == 1 << turn and run["address"][n] & 1 == bank
            seen[run["address"][n] >> 1] = fields(int(run["data"][n]), params.table_entry_bits, params.tables)
        expected = tables_of(params, row) + entry_offset(params)
        assert sorted(seen) == list(range(1, table_entries(params.group)))
        for entry, values in seen.items():
            np.testing.assert_array_equal(values, expected[:, entry])
    assert not run["enable"][~written].any()


@simulations("name", NAMES, cocotb=NAMES[:1])
def test_lane(simulation: SimulationClass, name: str):
    params = design(name)
    rng = np.random.default_rng(bench_seed())
    lane, latency = Lane(params), Lane.latency_cycles(params.tables)
    sim = simulation(lane).simulator()
    entries, places = table_entries(params.group), params.tables * params.outputs
    for kind in range(4):
        rows = [numbers(rng, (params.slice_elements,), -127, 127) for _ in range(2)]
        if kind == 0:
            rows = [np.full(params.slice_elements, value, np.int8) for value in (127, -127)]
        tables = [tables_of(params, row) for row in rows]
        writes = [(bank, entry) for bank in range(2) for entry in range(1, entries)]
        sim.run_vectors({
            "table_enable": np.array([1] * len(writes) + [0]),
            "table_address": np.array([entry << 1 | bank for bank, entry in writes] + [0]),
            "table_data": np.array([pack_fields(tables[bank][:, entry] + entry_offset(params), params.table_entry_bits)
                                    for bank, entry in writes] + [0], object),
        }, ["carries"])

        count = 200
        codes = rng.integers(0, 1 << params.code_bits, (count, places))
        codes[0], codes[1] = entries - 1, (entries - 1) | 1 << params.code_bits - 1  # all + 1, all − 1
        codes[2], codes[3] = 0, 1 << params.code_bits - 1  # zero, and minus zero
        banks, valid = rng.integers(0, 2, count), rng.random(count) < 0.8
        valid[:4] = True
        tail = np.zeros(latency, int)
        run = sim.run_vectors({
            "valid": np.concatenate([valid, tail]), "bank": np.concatenate([banks, tail]),
            "codes": np.array([pack_fields(c, params.code_bits) for c in codes] + [0] * latency, object),
        }, ["sums", "carries"])
        expected = None
        for n in range(count):
            if valid[n]:
                weights = np.array([decode_group(int(c), params.group) for c in codes[n]])
                row = np.tile(rows[banks[n]].astype(int), params.outputs)
                expected = (weights.reshape(-1) * row).reshape(params.outputs, -1).sum(1)
            sums = fields(int(run["sums"][n + latency]), lane.sum_bits, params.outputs)
            carries = fields(int(run["carries"][n + latency]), 1, params.outputs)
            np.testing.assert_array_equal(sums + carries - params.tables * entry_offset(params), expected)
