"""rtl/weight_buffer/crc32.py against zlib."""

import zlib

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.weight_buffer.crc32 import Crc32
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations


@simulations("beat_bytes", [16, 64, 128], cocotb=[16])
def test_equals_zlib(simulation: SimulationClass, beat_bytes: int):
    """Messages of 1 to 20 beats, with and without idle cycles, back to back, and single bits everywhere."""
    rng = np.random.default_rng(bench_seed())
    messages = [rng.integers(0, 256, rng.integers(1, 21) * beat_bytes, np.uint8).tobytes() for _ in range(300)]
    messages += [bytes(beat_bytes), b"\xff" * beat_bytes, bytes(20 * beat_bytes)]
    messages += [(1 << n).to_bytes(2 * beat_bytes, "little") for n in range(16 * beat_bytes)]
    columns: dict[str, list] = {"enable": [], "data": [], "first": [], "last": [], "tag": []}

    def cycle(enable, data, first, last, tag):
        for name, value in zip(columns, (enable, data, first, last, tag)):
            columns[name].append(value)

    ends = []
    for number, message in enumerate(messages):
        beats = len(message) // beat_bytes
        for n in range(beats):
            while number % 3 == 0 and rng.random() < 0.4:
                cycle(0, int.from_bytes(rng.bytes(beat_bytes), "little"), rng.integers(2), rng.integers(2), 0)
            raw = message[n * beat_bytes:(n + 1) * beat_bytes]
            cycle(1, int.from_bytes(raw, "little"), n == 0, n == beats - 1, number)
        ends.append(len(columns["enable"]) - 1)
    for _ in range(Crc32.latency_cycles + 2):
        cycle(0, 0, 0, 0, 0)

    run = simulation(Crc32(beat_bytes, 16)).simulator().run_vectors(
        {name: np.array(values, object if name == "data" else np.int64) for name, values in columns.items()},
        ["done", "crc", "tag_out", "busy"])
    done = np.flatnonzero(run["done"])
    assert done.tolist() == [end + Crc32.latency_cycles for end in ends]
    assert run["crc"][done].tolist() == [zlib.crc32(message) for message in messages]
    assert run["tag_out"][done].tolist() == list(range(len(messages)))
    assert run["busy"][done].all() and not run["busy"][-1]


def test_twin_equals_zlib():
    """The description that Amaranth simulates, beside the Verilog that it emits."""
    crc32 = Crc32(16, 1)
    message = np.random.default_rng(bench_seed()).bytes(5 * 16)

    async def bench(ctx):
        for n in range(5):
            ctx.set(crc32.enable, 1)
            ctx.set(crc32.data, int.from_bytes(message[16 * n:16 * n + 16], "little"))
            ctx.set(crc32.first, n == 0)
            ctx.set(crc32.last, n == 4)
            await ctx.tick()
        ctx.set(crc32.enable, 0)
        await ctx.tick().repeat(Crc32.latency_cycles - 1)
        assert ctx.get(crc32.done) and ctx.get(crc32.crc) == zlib.crc32(message)

    simulator = Simulator(crc32)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("beat_bytes, tag_bits, name",
                         [(0, 1, "beat_bytes"), (18, 1, "beat_bytes"), (16, 0, "tag_bits")])
def test_refuses_impossible_sizes(beat_bytes: int, tag_bits: int, name: str):
    with pytest.raises(ValueError, match=name):
        Crc32(beat_bytes, tag_bits)
