"""rtl/ternary_matmul/engine.py against its golden: sums, stalls, short tiles, masks, cycles, framing."""

from collections.abc import Mapping
from types import SimpleNamespace

import cocotb
import numpy as np
import pytest
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge

from rtl.contract.design_params import DesignParams
from rtl.streams import shapes
from rtl.ternary_matmul.engine import TernaryMatmul
from rtl.ternary_matmul.sweep import EVENTS
from sim_tests.blocks.ternary_matmul_cases import (
    DESIGNS,
    Tile,
    activation_fields,
    code_fields,
    command_word,
    design,
    numbers,
    random_tiles,
)
from sim_tests.harness.bench import bench_seed, reset, run_bench
from sim_tests.harness.fast import VerilatedLibrary
from sim_tests.harness.payload import from_ints, pack, to_ints, unpack
from sim_tests.harness.simulation import Simulator, StreamRun
from sim_tests.harness.streams import cycle, receive, send, stalls

LATENCY = shapes.DRAIN_READ_LATENCY
# nothing, everything, and a slow memory, behind which tables wait for codes
STALLS: list[dict[str, float]] = [{}, {"command": 0.4, "codes": 0.4, "activation": 0.4, "tile": 0.4}, {"codes": 0.8}]


class Engine:
    """The engine as a library: tiles that fit the ring go in, their sums come out."""

    def __init__(self, params: DesignParams, rows: int, mask: int | None = None):
        self.params, self.rows = params, rows
        self.component = TernaryMatmul(params)
        self.sim: Simulator = VerilatedLibrary(self.component).simulator()
        self.sim.set("rows", rows)
        self.sim.set("row_mask", (1 << rows) - 1 if mask is None else mask)
        self.ring_step = 0

    def run(self, tiles: list[Tile], stall: Mapping[str, float] | float = 0.0, seed: int = 1) -> StreamRun:
        assert sum(tile.steps for tile in tiles) <= self.params.drain_steps
        assert len([tile for tile in tiles if tile.fills]) <= 2
        run = self.sim.run_streams(
            {"command": np.array([command_word(tile) for tile in tiles], object),
             "codes": code_fields(self.params, tiles), "activation": activation_fields(self.params, tiles)},
            {"tile": len(tiles)}, stall=stall, seed=seed, idle_cycles=30, max_cycles=200_000)
        steps = np.array([tile.steps for tile in tiles])
        np.testing.assert_array_equal(run.outputs["tile"]["steps"], steps)
        bases = (self.ring_step + np.cumsum(steps) - steps) % self.params.drain_steps
        np.testing.assert_array_equal(run.outputs["tile"]["base"], bases)
        return run

    def drain(self, tiles: list[Tile]) -> list[np.ndarray]:
        """[P, steps·Q] of each tile, whose steps are then given back."""
        p, sums = self.params, []
        for tile in tiles:
            step = (self.ring_step + np.tile(np.arange(tile.steps), p.rows)) % p.drain_steps
            self.ring_step = (self.ring_step + tile.steps) % p.drain_steps
            count = p.rows * tile.steps
            late = np.zeros(LATENCY, np.int64)
            read = self.sim.run_vectors({
                "drain_read__enable": np.concatenate([np.ones(count, np.int64), late]),
                "drain_read__step": np.concatenate([step, late]),
                "drain_read__row": np.concatenate([np.repeat(np.arange(p.rows), tile.steps), late]),
            }, ["drain_read__data"])["drain_read__data"]
            sums.append(read[LATENCY:].reshape(p.rows, -1))
            self.sim.run_vectors({"drain_release": {"valid": np.array([1, 0]), "steps": np.array([tile.steps, 0])}},
                                 ["busy"])
        return sums


def groups_that_fit(params: DesignParams, tiles: list[Tile]) -> list[list[Tile]]:
    """Whole fills, two at most, whose tiles fit the ring."""
    groups: list[list[Tile]] = []
    fill: list[Tile] = []
    for tile in tiles:
        fill.append(tile)
        if tile.release:
            last = groups[-1] if groups else []
            if last and sum(t.fills for t in last) < 2 and sum(t.steps for t in last + fill) <= params.drain_steps:
                last += fill
            else:
                groups.append(fill)
            fill = []
    return groups


@pytest.mark.parametrize("name", DESIGNS)
def test_sums(name: str):
    params = design(name)
    rng = np.random.default_rng(bench_seed())
    for rows in sorted({1, params.rows, max(1, params.rows - 1)}):
        engine = Engine(params, rows)
        most = params.drain_steps // 3
        for number, tiles in enumerate(groups_that_fit(params, random_tiles(params, rows, 24, rng, max_steps=most))):
            engine.run(tiles, STALLS[number % len(STALLS)], seed=bench_seed() + number)
            for tile, sums in zip(tiles, engine.drain(tiles)):
                np.testing.assert_array_equal(sums[:rows], tile.sums(params))
        assert engine.sim.get("busy") == 0 and engine.sim.get("framing_error") == 0
        assert engine.sim.get("activation_free") == 3


@pytest.mark.parametrize("name", ["five_bit_t7_q3", "dense_g4_t5_q3"])
def test_masked_rows_keep_what_they_had(name: str):
    params = design(name)
    rng = np.random.default_rng(bench_seed())
    mask = 0b101 & (1 << params.rows) - 1
    engine = Engine(params, params.rows, mask)
    before = np.zeros((params.rows, params.drain_steps * params.outputs), np.int64)
    for round_ in range(4):
        engine.sim.set("row_mask", (1 << params.rows) - 1 if round_ % 2 == 0 else mask)
        # a tile of the whole ring's length, in two halves
        steps = params.drain_steps // 2
        inputs = 2 * params.slice_elements
        tile = Tile(0, 2, min(steps, params.tile_steps), numbers(rng, (1, inputs), -1, 1),
                    numbers(rng, (params.rows, inputs), -127, 127), True, True)
        tile.weights = rng.integers(-1, 2, (tile.steps * params.outputs, inputs)).astype(np.int8)
        places = [(engine.ring_step + i) % params.drain_steps * params.outputs + q
                  for i in range(tile.steps) for q in range(params.outputs)]
        engine.run([tile])
        (sums,) = engine.drain([tile])
        expected = before[:, places]
        expected[[r for r in range(params.rows) if round_ % 2 == 0 or mask >> r & 1]] = \
            tile.sums(params)[[r for r in range(params.rows) if round_ % 2 == 0 or mask >> r & 1]]
        np.testing.assert_array_equal(sums, expected)
        before[:, places] = sums


@pytest.mark.parametrize("name", DESIGNS)
def test_cycles(name: str):
    params = design(name)
    rng = np.random.default_rng(bench_seed())
    for rows in sorted({1, params.rows}):
        engine = Engine(params, rows)
        for steps in (1, 2, 3, 5, 9, params.tile_steps // 2, params.tile_steps):
            slices, count = min(3, params.activation_words // rows), min(8, params.drain_steps // steps)
            tiles: list[Tile] = []
            for n in range(count):  # half of them on one buffer, half on the other
                fills, release = n in (0, count // 2), n in (count // 2 - 1, count - 1)
                inputs = slices * params.slice_elements
                activations = numbers(rng, (rows, inputs), -127, 127) if fills else tiles[-1].activations
                tiles.append(Tile(int(n >= count // 2), slices, steps, numbers(rng, (steps, inputs), -1, 1),
                                  activations, fills, release))
            run = engine.run(tiles)
            starts = run.transfer_cycles["codes"][::steps]
            # the first slices hold activations back, whose stream is one word a cycle
            measured = (starts[-1] - starts[4]) / (len(starts) - 5)
            expected = engine.component.interval_cycles(steps, rows)
            assert abs(measured - expected) * (len(starts) - 5) <= 1, (name, rows, steps, measured, expected)
            if expected == steps:  # not one cycle is lost once it runs, from tile to tile and from buffer to buffer
                assert (np.diff(run.transfer_cycles["codes"][4 * steps:]) == 1).all()
            ends = run.transfer_cycles["codes"][slices * steps - 1::slices * steps]
            np.testing.assert_array_equal(run.transfer_cycles["tile"] - ends, engine.component.latency_cycles)
            for tile, sums in zip(tiles, engine.drain(tiles)):
                np.testing.assert_array_equal(sums[:rows], tile.sums(params))


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_record_that_is_not_a_tile_is_an_error(shift: int):
    params = design("five_bit_t7_q3")
    engine = Engine(params, params.rows)
    (tile,) = [t for t in random_tiles(params, params.rows, 1, np.random.default_rng(3)) if t.fills][:1]
    tile.release, beats = True, tile.slices * tile.steps
    fields = code_fields(params, [tile])
    fields["last"] = np.roll(fields["last"], shift) if shift < 0 else np.zeros_like(fields["last"])
    assert beats > 1
    engine.sim.run_streams({"command": np.array([command_word(tile)], object), "codes": fields,
                            "activation": activation_fields(params, [tile])}, {"tile": 1})
    assert engine.sim.get("framing_error") == 1
    engine.sim.reset()
    assert engine.sim.get("framing_error") == 0


def full_tile(params: DesignParams, rows: int, rng: np.random.Generator, buffer: int, fills: bool,
              release: bool) -> Tile:
    """As long a tile as there is: two of them fill the ring."""
    inputs = params.slice_elements
    activations = np.full((rows, inputs), 127, np.int8)
    weights = numbers(rng, (params.tile_steps * params.outputs, inputs), -1, 1)
    return Tile(buffer, 1, params.tile_steps, weights, activations, fills, release)


# ---- behaviour, with a consumer that keeps the ring full and a producer that waits for its buffers ------------------

@cocotb.test()
async def keeps_its_promises(dut):
    bench = await reset(dut)
    params = design(bench.design)
    rng = np.random.default_rng(bench.seed)
    tiles = random_tiles(params, bench.active_rows, bench.fills, rng, max_slices=3)
    tiles += [full_tile(params, bench.active_rows, rng, bench.fills % 2, n == 0, n == 3) for n in range(4)]
    dut.rows.value = bench.active_rows
    dut.row_mask.value = (1 << bench.active_rows) - 1
    seen = SimpleNamespace(events=np.zeros(len(EVENTS.members), int), done=0, cycles=0, stop=False)

    async def watch():
        while not seen.stop:
            await ReadOnly()
            events = int(dut.events.value)
            assert events.bit_count() == 1, f"events {events:#b} in cycle {cycle()}"
            seen.events[events.bit_length() - 1] += 1
            seen.done += int(dut.done.value)
            if int(dut.done.value):
                assert dut.busy.value == 1
            await RisingEdge(dut.clk)

    async def fill():
        """Activations, each buffer when it is free."""
        shape = shapes.activation_slice(params)
        await ClockCycles(dut.clk, 30)  # the first tile is there first
        for number, tile in enumerate(t for t in tiles if t.fills):
            while not int(dut.activation_free.value) >> tile.buffer & 1:
                await RisingEdge(dut.clk)
            words = to_ints(pack(shape, activation_fields(params, [tile])))
            await send(dut, "activation", words, stalls(bench.stall, bench.seed + 10 + number))
            await RisingEdge(dut.clk)

    async def drain():
        """Every word of every tile, at leisure; then the release."""
        layout, wait = shapes.drain_tile(params), stalls(bench.stall, bench.seed + 3)
        for tile in tiles:
            (word,) = await receive(dut, "tile", 1, stalls(bench.stall, bench.seed + 4))
            offer = unpack(layout, from_ints(layout, [word]))
            assert offer["steps"][0] == tile.steps
            got = np.zeros((bench.active_rows, tile.steps * params.outputs), np.int64)
            for r in range(bench.active_rows):
                for i in range(tile.steps):
                    while next(wait):
                        await RisingEdge(dut.clk)
                    dut.drain_read__enable.value = 1
                    dut.drain_read__step.value = (int(offer["base"][0]) + i) % params.drain_steps
                    dut.drain_read__row.value = r
                    await RisingEdge(dut.clk)
                    dut.drain_read__enable.value = 0
                    for _ in range(LATENCY - 1):
                        await RisingEdge(dut.clk)
                    await ReadOnly()
                    data = shapes.drain_read(params).members["data"].shape
                    got[r, i * params.outputs:(i + 1) * params.outputs] = unpack(
                        data, from_ints(data, [int(dut.drain_read__data.value)]))[0]
                    await RisingEdge(dut.clk)
            np.testing.assert_array_equal(got, tile.sums(params))
            dut.drain_release.value = to_ints(pack(shapes.DRAIN_RELEASE, {
                "valid": np.array([1]), "steps": np.array([tile.steps])}))[0]
            await RisingEdge(dut.clk)
            dut.drain_release.value = 0

    cocotb.start_soon(watch())
    codes = to_ints(pack(shapes.beat(params), code_fields(params, tiles)))
    cocotb.start_soon(send(dut, "command", map(command_word, tiles), stalls(bench.stall, bench.seed + 1)))
    cocotb.start_soon(send(dut, "codes", codes, stalls(bench.stall, bench.seed + 2)))
    cocotb.start_soon(fill())
    await drain()
    for _ in range(5):
        await RisingEdge(dut.clk)
    await ReadOnly()
    assert dut.busy.value == 0 and dut.framing_error.value == 0 and dut.tile__valid.value == 0
    assert seen.done == len(tiles)
    counts = dict(zip(EVENTS.members, seen.events))
    assert counts["step"] == len(codes)
    wanted = {"wait_drain", "wait_table", "wait_activation", "no_command"} | ({"wait_stream"} if bench.stall else set())
    assert all(counts[name] > 0 for name in wanted), counts


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("name, active_rows", [("five_bit_t7_q3", 3), ("dense_g4_t5_q3", 3), ("dense_g2_t13_q4", 1)])
def test_engine(name: str, active_rows: int, stall: float):
    run_bench(TernaryMatmul(design(name)), __name__, design=name, active_rows=active_rows, stall=stall, fills=8)
