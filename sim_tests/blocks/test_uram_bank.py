"""rtl/weight_buffer/uram_bank.py: contents, latency, and that its own Verilog equals what Amaranth simulates."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.streams.shared_module import emit_design
from rtl.weight_buffer.uram_bank import UramBank
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations

CYCLES = 3000


def traffic(depth: int, width: int, cycles: int, seed: int, lanes: int = 1) -> tuple[dict, np.ndarray, np.ndarray]:
    """Inputs without collisions; the value that each read must yield; cycles whose reads have a defined value."""
    rng = np.random.default_rng(seed)
    write, read = rng.random(cycles) < 0.6, rng.random(cycles) < 0.6
    write_address, read_address = rng.integers(0, depth, cycles), rng.integers(0, depth, cycles)
    write[:depth], write_address[:depth] = True, np.arange(depth)  # nothing is read before it is written
    read[:depth] = False
    read &= ~(write & (write_address == read_address))
    enable = np.where(write, rng.integers(1, 1 << lanes, cycles), 0)
    enable[:depth] = (1 << lanes) - 1
    part = (1 << width // lanes) - 1
    masks = [sum(part << lane * (width // lanes) for lane in range(lanes) if int(e) >> lane & 1) for e in enable]
    data = np.array([int.from_bytes(rng.bytes(-(-width // 8)), "little") & (1 << width) - 1 for _ in range(cycles)],
                    object)
    words: dict[int, int] = {}
    expected = np.zeros(cycles, object)
    for n in range(cycles):
        if read[n]:
            expected[n] = words[int(read_address[n])]
        if write[n]:
            kept = words.get(int(write_address[n]), 0) & ~masks[n]
            words[int(write_address[n])] = kept | data[n] & masks[n]
    inputs = {"write_enable": enable, "write_address": write_address, "write_data": data,
              "read_enable": read.astype(int), "read_address": read_address}
    return inputs, expected, read


def shown(expected: np.ndarray, read: np.ndarray, latency: int) -> list:
    """read_data in each cycle: the newest read at least ``latency`` cycles old; None before the first."""
    values, newest = [], None
    for n in range(len(read)):
        if n >= latency and read[n - latency]:
            newest = expected[n - latency]
        values.append(newest)
    return values


@simulations("width, depth, latency, style, lanes", [
    (72, 64, 1, "ultra", 1), (1, 3, 2, "auto", 1), (480, 37, 3, "block", 1), (216, 50, 1, "ultra", 2),
    (27, 7, 2, "block", 3)], cocotb=[(72, 64, 1, "ultra", 1)])
def test_contents(simulation: SimulationClass, width: int, depth: int, latency: int, style: str, lanes: int):
    inputs, expected, read = traffic(depth, width, CYCLES, bench_seed(), lanes)
    run = simulation(UramBank(width, depth, latency, style, lanes)).simulator().run_vectors(inputs, ["read_data"])
    wanted = shown(expected, read, latency)
    got = [int(v) for v in run["read_data"]]
    assert [g for g, w in zip(got, wanted) if w is not None] == [w for w in wanted if w is not None]


@pytest.mark.parametrize("lanes", [1, 3])
def test_amaranth_simulates_the_same(lanes: int):
    bank = UramBank(9, 11, 2, write_lanes=lanes)
    inputs, expected, read = traffic(11, 9, 300, bench_seed(), lanes)
    got = []

    async def bench(ctx):
        for n in range(300):
            for name, values in inputs.items():
                ctx.set(getattr(bank, name), int(values[n]))
            got.append(ctx.get(bank.read_data))
            await ctx.tick()

    simulator = Simulator(bank)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    wanted = shown(expected, read, 2)
    assert [g for g, w in zip(got, wanted) if w is not None] == [w for w in wanted if w is not None]


def test_verilog_has_no_initial_contents():
    design = emit_design(UramBank(72, 4096), "top")
    assert 'ram_style = "ultra"' in design.verilog
    assert "initial" not in design.verilog[design.verilog.index("module memory_bank"):design.verilog.index("endmodule")]


@pytest.mark.parametrize("arguments, name", [((0, 8), "width"), ((8, 1), "depth"), ((8, 8, 4), "read_latency"),
                                             ((8, 8, 1, "flash"), "style"), ((8, 8, 1, "auto", 3), "write_lanes")])
def test_refuses_impossible_parameters(arguments: tuple, name: str):
    with pytest.raises(ValueError, match=name):
        UramBank(*arguments)
