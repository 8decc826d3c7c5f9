"""rtl/head/argmax.py against its golden: values, stalls, cycles."""

import cocotb
import numpy as np
import pytest

from hls_py.golden.head.argmax import argmax
from rtl.head.argmax import LOGIT, Argmax
from sim_tests.harness.bench import bench_seed, reset, run_bench
from sim_tests.harness.fast import VerilatedLibrary
from sim_tests.harness.payload import from_ints, pack, to_ints, unpack
from sim_tests.harness.streams import cycle, receive, send, stalls

SPECIALS = np.array([0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x00000001, 0x3F800000], np.uint32)


def random_rows(count: int, logits: int, seed: int) -> np.ndarray:
    """[count, logits] float32 in which ties and special values are common."""
    rng = np.random.default_rng(seed)
    bits = rng.choice(np.concatenate([SPECIALS, rng.integers(0, 2**32, 9, np.uint32)]), (count, logits))
    return bits.astype(np.uint32).view(np.float32)


def as_fields(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Payload fields of all logits of ``rows``, in stream order."""
    last = np.zeros(rows.shape, bool)
    last[:, -1] = True
    return {"bits": rows.view(np.uint32).reshape(-1), "last": last.reshape(-1)}


def check(token: dict[str, np.ndarray], rows: np.ndarray) -> None:
    expected = argmax(rows)
    np.testing.assert_array_equal(token["index"], expected)
    np.testing.assert_array_equal(token["bits"], rows.view(np.uint32)[np.arange(len(rows)), expected])


@cocotb.test()
async def equals_golden(dut):
    bench = await reset(dut)
    rows = random_rows(bench.rows, bench.logits, bench.seed)
    start = cycle()
    cocotb.start_soon(send(dut, "logits", to_ints(pack(LOGIT, as_fields(rows))), stalls(bench.stall, bench.seed)))
    got = await receive(dut, "token", bench.rows, stalls(bench.stall, bench.seed + 1))
    token = Argmax(bench.index_bits).token.p.shape()
    check(unpack(token, from_ints(token, got)), rows)
    if not bench.stall:
        assert cycle() - start == bench.rows * Argmax.interval_cycles(bench.logits)


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("index_bits, logits", [(1, 1), (5, 32), (17, 301)])
def test_argmax(index_bits: int, logits: int, stall: float):
    run_bench(Argmax(index_bits), __name__, rows=20, logits=logits, stall=stall, index_bits=index_bits)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_many_values(stall: float):
    rows = np.random.default_rng(bench_seed()).integers(0, 2**32, (2000, 97), np.uint32).view(np.float32)
    rows = np.where(np.isnan(rows), np.float32(1), rows)
    run = VerilatedLibrary(Argmax(7)).simulator().run_streams(
        {"logits": as_fields(rows)}, {"token": len(rows)}, stall=stall, idle_cycles=10)
    check(run.outputs["token"], rows)
    if not stall:
        assert run.cycles == len(rows) * Argmax.interval_cycles(rows.shape[1])
        assert run.transfer_cycles["token"][0] == rows.shape[1] - 1 + Argmax.latency_cycles


@pytest.mark.parametrize("index_bits", [0, 33])
def test_refuses_impossible_widths(index_bits: int):
    with pytest.raises(ValueError, match="index_bits"):
        Argmax(index_bits)
