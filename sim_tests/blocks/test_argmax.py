"""rtl/head/argmax.py against its golden: values, stalls, cycles."""

import cocotb
import numpy as np
import pytest

from hls_py.golden.head.argmax import argmax
from rtl.head.argmax import Argmax
from sim_tests.harness.bench import reset, run_bench
from sim_tests.harness.streams import cycle, receive, send, stalls

SPECIALS = np.array([0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x00000001, 0x3F800000], np.uint32)


def rows(count: int, logits: int, seed: int) -> np.ndarray:
    """Random rows in which ties and special values are common."""
    rng = np.random.default_rng(seed)
    bits = rng.choice(np.concatenate([SPECIALS, rng.integers(0, 2**32, 9, np.uint32)]), (count, logits))
    return bits.astype(np.uint32).view(np.float32)


@cocotb.test()
async def equals_golden(dut):
    bench = await reset(dut)
    sent = rows(bench.rows, bench.logits, bench.seed)
    items = [bits | (n == bench.logits - 1) << 32 for row in sent.view(np.uint32).tolist() for n, bits in enumerate(row)]
    start = cycle()
    cocotb.start_soon(send(dut, "logits", items, stalls(bench.stall, bench.seed)))
    got = await receive(dut, "token", bench.rows, stalls(bench.stall, bench.seed + 1))

    index = argmax(sent)
    bits = sent.view(np.uint32)[np.arange(bench.rows), index]
    assert got == [int(i) | int(b) << bench.index_bits for i, b in zip(index, bits)]
    if not bench.stall:
        assert cycle() - start == bench.rows * Argmax.interval_cycles(bench.logits)


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("index_bits, logits", [(1, 1), (5, 32), (17, 301)])
def test_argmax(index_bits: int, logits: int, stall: float):
    run_bench(Argmax(index_bits), __name__, rows=20, logits=logits, stall=stall, index_bits=index_bits)


@pytest.mark.parametrize("index_bits", [0, 33])
def test_refuses_impossible_widths(index_bits: int):
    with pytest.raises(ValueError, match="index_bits"):
        Argmax(index_bits)
