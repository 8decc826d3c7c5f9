"""rtl/memory_ports/chunker.py: counts come apart right, and never more room is taken than there is."""

import random

import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge

from rtl.memory_ports.chunker import Chunker
from sim_tests.harness.bench import reset, run_bench
from sim_tests.harness.streams import cycle, receive, send, stalls


@cocotb.test()
async def chunks_have_room(dut):
    bench = await reset(dut)
    rng = random.Random(bench.seed)
    counts = [rng.choice([0, 1, bench.chunk, rng.randint(0, 4 * bench.chunk + 3)]) for _ in range(60)]
    expected = []
    for count in counts:
        expected += [bench.chunk] * (count // bench.chunk) + [count % bench.chunk] * (count % bench.chunk > 0)
    cocotb.start_soon(send(dut, "count", counts, stalls(bench.stall, bench.seed)))
    receiver = cocotb.start_soon(receive(dut, "chunk", len(expected), stalls(bench.stall, bench.seed + 1)))

    taken = returned = most = 0
    while returned < sum(counts):
        back = taken > returned and rng.random() < bench.returns
        dut.returned.value = int(back)
        await ReadOnly()
        assert dut.all_free.value == (taken == returned)
        if dut.chunk__valid.value:
            assert taken - returned + int(dut.chunk__payload.value) <= bench.depth
            taken += int(dut.chunk__payload.value) * int(dut.chunk__ready.value)
        most = max(most, taken - returned)
        await RisingEdge(dut.clk)
        returned += back
    dut.returned.value = 0
    assert await receiver == expected
    await ReadOnly()
    assert dut.idle.value and dut.all_free.value and not dut.held_back.value
    assert bench.returns == 1 or most > bench.depth - bench.chunk, "the room was never used"


@cocotb.test()
async def a_chunk_every_interval(dut):
    await reset(dut)
    cocotb.start_soon(send(dut, "count", [20]))
    cycles: list[int] = []
    assert await receive(dut, "chunk", 10, cycles=cycles) == [2] * 10
    assert cycles[-1] - cycles[0] == 9 * Chunker.interval_cycles and cycle() == cycles[-1]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("count_bits, chunk, depth, returns", [(16, 16, 40, 0.9), (8, 1, 1, 1), (32, 7, 7, 0.3)])
def test_chunks(count_bits: int, chunk: int, depth: int, returns: float, stall: float):
    run_bench(Chunker(count_bits, chunk, depth), __name__, testcase="chunks_have_room", chunk=chunk, depth=depth,
              returns=returns, stall=stall)


def test_interval():
    run_bench(Chunker(8, 2, 100), __name__, testcase="a_chunk_every_interval")


@pytest.mark.parametrize("chunk, depth", [(0, 4), (5, 4)])
def test_refuses_impossible_chunks(chunk: int, depth: int):
    with pytest.raises(ValueError, match="chunk_words"):
        Chunker(8, chunk, depth)
