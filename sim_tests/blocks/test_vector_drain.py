"""rtl/vector_unit/drain.py, ring_reader, head_path, head_quantise against golden: values, order, stalls, cycles."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from hls_py.golden.vector_unit import drain as golden
from hls_py.kernels.registry import KERNELS
from rtl.contract.command_words import DRAIN, ActivationFunction, DrainMode
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for, round_up
from rtl.streams import shapes
from rtl.vector_unit.drain import Drain
from rtl.vector_unit.head_path import rotary_depth, rotary_words_log2
from rtl.vector_unit.statistics import statistics_word
from rtl.vector_unit.word_memory import WordMemory, float_words
from sim_tests.blocks.vector_bench import (
    Ring,
    as_floats,
    as_words,
    commands,
    joined,
    load_layout,
    loadable,
    ring_words,
    same,
    seed_of,
    watched,
)
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

# W, Q, P, max_head_dim
DESIGNS = {"w4q5p4": (4, 5, 4, 96), "w8q3p3": (8, 3, 3, 64), "w2q4p1": (2, 4, 1, 100)}


class Bench(wiring.Component):
    """Drain with a ring, the memories that it reads (loaded by streams) and everything it writes (as streams)."""

    def __init__(self, params: DesignParams):
        self.params = params
        word = float_words(params.vector_lanes)
        super().__init__({
            "command": In(stream.Signature(shapes.COMMAND_BITS)),
            "tile": In(stream.Signature(shapes.drain_tile(params))),
            "rows": In(bits_for(params.rows)), "busy": Out(1),
            "ring_load": In(stream.Signature(load_layout(
                params.rows * params.drain_steps, data.ArrayLayout(params.accumulator_bits, params.outputs)))),
            "residual_load": In(stream.Signature(load_layout(params.residual_words, word))),
            "rotary_load": In(stream.Signature(load_layout(rotary_depth(params), word))),
            "scale_load": In(stream.Signature(load_layout(2 * params.rows, 32))),
            "residual": Out(stream.Signature(load_layout(params.residual_words, word))),
            "vector": Out(stream.Signature(load_layout(params.vector_words, word))),
            "released": Out(stream.Signature(16)), "finished": Out(stream.Signature(1)),
            "statistics": Out(stream.Signature(statistics_word(params))),
            "heads": Out(stream.Signature(shapes.head_segment(params))),
            "head_scales": Out(stream.Signature(shapes.head_scale(params))),
        })

    def elaborate(self, platform):
        m = Module()
        params = self.params
        word = float_words(params.vector_lanes)
        m.submodules.drain = drain = Drain(params, KERNELS)
        m.submodules.ring = ring = Ring(params)
        for name in ("command", "tile", "statistics", "heads", "head_scales"):
            connect(m, flipped(getattr(self, name)), getattr(drain, name))
        connect(m, flipped(self.ring_load), ring.load)
        connect(m, drain.drain_read, ring.read)
        m.submodules.scales = scales = Memory(shape=32, depth=2 * params.rows, init=[])
        loadable(m, "scales", scales, self.scale_load)
        scale = scales.read_port(domain="comb")
        m.d.comb += [scale.addr.eq(Cat(drain.scale.activation, drain.scale.row)), drain.scale.scale.eq(scale.data),
                     drain.rows.eq(self.rows), self.busy.eq(drain.busy)]
        m.submodules.residual_memory = residual = WordMemory(params.residual_words, word)
        m.submodules.rotary_memory = rotary = WordMemory(rotary_depth(params), word)
        connect(m, drain.residual_read, residual.read)
        connect(m, drain.rotary, rotary.read)
        for memory, load, own in ((residual, self.residual_load, drain.residual_write),
                                  (rotary, self.rotary_load, None)):
            m.d.comb += [load.ready.eq(1), memory.write.enable.eq(load.valid), memory.write.address.eq(load.p.address),
                         memory.write.data.eq(load.p.data)]
            if own is not None:
                with m.If(own.enable):
                    m.d.comb += [memory.write.enable.eq(1), memory.write.address.eq(own.address),
                                 memory.write.data.eq(own.data)]
        for name, port in (("residual", drain.residual_write), ("vector", drain.vector_write)):
            address = getattr(self, name).p.address
            watched(m, name, getattr(self, name), port.enable, Cat(port.address[:len(address)], port.data))
        watched(m, "released", self.released, drain.drain_release.valid, drain.drain_release.steps)
        watched(m, "finished", self.finished, drain.done, Cat(1))
        return m


def params_of(design: str) -> DesignParams:
    lanes, outputs, rows, max_head_dim = DESIGNS[design]
    return DesignParams(rows=rows, tables=1, outputs=outputs, vector_lanes=lanes, ports=1, port_bytes=16, max_hidden=96,
                        max_inner=200, max_head_dim=max_head_dim, tile_steps=60, drain_steps=137)


@cache
def compiled(simulation: SimulationClass, design: str) -> Simulation:
    return simulation(Bench(params_of(design)), f"drain_bench_{design}")


class Case:
    """One simulation: its random numbers, what is loaded, and the rows that run."""

    def __init__(self, simulation: SimulationClass, design: str, name: str, stall: float, rows: int | None = None):
        self.params = params_of(design)
        self.stall = stall
        self.seed = seed_of(design, name, stall, bench_seed())
        self.rng = np.random.default_rng(self.seed)
        self.sim = compiled(simulation, design).simulator()
        self.rows = rows or int(self.rng.integers(1, self.params.rows + 1))
        self.sim.set("rows", self.rows)
        self.scales = self.rng.lognormal(-6, 2, (2, self.rows)).astype(np.float32)
        self.load({"scale_load": {"address": np.arange(2 * self.rows) % 2 + 2 * (np.arange(2 * self.rows) // 2),
                                  "data": self.scales.T.reshape(-1).view(np.uint32)}})

    def load(self, inputs: dict) -> None:
        self.sim.run_streams(inputs, {})

    def sums(self, steps: int, largest: int | None = None) -> np.ndarray:
        """[R, steps·Q] sums with extremes among them."""
        limit = (1 << self.params.accumulator_bits - 1) - 1 if largest is None else largest
        sums = self.rng.integers(-limit, limit + 1, (self.rows, steps * self.params.outputs))
        sums.reshape(-1)[self.rng.choice(sums.size, 3)] = [limit, -limit, 0]
        return sums

    def run(self, inputs: dict, outputs: dict):
        """Streams as in run_streams; watched ones and commands don't stall."""
        names = {*inputs, *outputs} & {"statistics", "heads", "head_scales", "tile", "command"}
        return self.sim.run_streams(inputs, outputs, stall={n: self.stall for n in names} if self.stall else 0.0,
                                    seed=self.seed, idle_cycles=20)


def tile_fields(tiles: list[tuple[int, int]]) -> dict:
    base, steps = np.array(tiles).T
    return {"base": base, "steps": steps}


def padded_outputs(sums: np.ndarray, outputs: int) -> np.ndarray:
    """The outputs that count: cut, or zeros beyond the tile's."""
    return np.pad(sums, ((0, 0), (0, max(0, outputs - sums.shape[1]))))[:, :outputs]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("design", DESIGNS, cocotb=["w2q4p1"])
def test_residual(simulation: SimulationClass, design: str, stall: float):
    case = Case(simulation, design, "residual", stall)
    params, rows, rng = case.params, case.rows, case.rng
    lanes, q = params.vector_lanes, params.outputs
    row_words = 96 // lanes
    residual = rng.normal(size=(rows, 96)).astype(np.float32)
    residual[0, :4] = [np.inf, np.nan, 1e-40, -0.0]
    address = (np.arange(rows)[:, None] * row_words + np.arange(row_words)).reshape(-1)
    case.load({"residual_load": {"address": address, "data": as_words(residual, lanes)}})
    # Two tiles that make up a vector, the second wrapping around the ring's end, one with fewer outputs than 8.
    first_outputs, base = 56, params.drain_steps - 5
    steps = [-(-first_outputs // q), -(-33 // q)]
    sums = [case.sums(s) for s in steps]
    bases = [base, (base + steps[0]) % params.drain_steps]
    case.load({"ring_load": joined(*(ring_words(params, s, b) for s, b in zip(sums, bases)))})
    fields = dict(mode=DrainMode.RESIDUAL, activation=1, row_words=row_words, scale=np.float32(0.03), has_norm=1,
                  gain_bank=1)
    words = [first_outputs // lanes, 40 // lanes]
    run = case.run(
        {"tile": tile_fields(list(zip(bases, steps))),
         "command": commands(DRAIN, {**fields, "first_word": 0, "outputs": first_outputs, "steps": steps[0],
                                     "statistics": 1},
                             {**fields, "first_word": words[0], "outputs": 40, "steps": steps[1], "statistics": 0})},
        {"residual": rows * sum(words), "statistics": rows * words[0], "released": 2, "finished": 2})
    scale = golden.row_scales(case.scales[1], np.float32(0.03))
    acc = np.concatenate([padded_outputs(sums[0], first_outputs), padded_outputs(sums[1], 40)], axis=1)
    expected = golden.drain_residual(acc, scale, residual)
    place, value = [], []
    for start, count in ((0, words[0]), (words[0], words[1])):
        for r in range(rows):
            place += [r * row_words + start + w for w in range(count)]
            value.append(as_words(expected[r, start * lanes:(start + count) * lanes], lanes))
    same(run.outputs["residual"]["address"], place)
    same(as_floats(run.outputs["residual"]["data"]), as_floats(np.concatenate(value)))
    same(run.outputs["released"], steps)
    statistics = run.outputs["statistics"]
    same(as_floats(statistics["data"]), as_floats(np.concatenate(value[:rows])))
    same(statistics["row"], np.repeat(np.arange(rows), words[0]))
    same(statistics["word"], np.tile(np.arange(words[0]), rows))
    assert statistics["has_norm"].all() and statistics["gain_bank"].all()


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("design", DESIGNS, cocotb=["w2q4p1"])
def test_gated(simulation: SimulationClass, design: str, stall: float):
    case = Case(simulation, design, "gated", stall, rows=params_of(design).rows)
    params, rows = case.params, case.rows
    lanes, q, outputs = params.vector_lanes, params.outputs, 48
    steps, base, row_words = -(-outputs // q), params.drain_steps - 20, 160 // lanes
    tiles, inputs, expected, place = [], [], [], []
    for number, function in enumerate((ActivationFunction.SILU, ActivationFunction.RELU_SQUARED)):
        gate, up = case.sums(steps, 30000), case.sums(steps)
        here = [(base + (2 * number + n) * steps) % params.drain_steps for n in range(2)]
        case.load({"ring_load": joined(ring_words(params, gate, here[0]), ring_words(params, up, here[1]))})
        tiles += [(here[0], steps), (here[1], steps)]
        inputs.append(dict(mode=DrainMode.GATED, function=function, first_word=number * 48 // lanes, outputs=outputs,
                           steps=steps, row_words=row_words, scale=np.float32(1e-2), scale2=np.float32(3e-4),
                           statistics=number))
        gate_scale, up_scale = (golden.row_scales(case.scales[0], s) for s in (1e-2, 3e-4))
        expected.append(golden.gated(gate[:, :outputs], up[:, :outputs], gate_scale, up_scale, function))
        place += [r * row_words + number * 48 // lanes + w for r in range(rows) for w in range(outputs // lanes)]
    count = rows * outputs // lanes
    run = case.run({"tile": tile_fields(tiles), "command": commands(DRAIN, *inputs)},
                   {"vector": 2 * count, "statistics": count, "released": 4, "finished": 2})
    same(run.outputs["vector"]["address"], place)
    same(as_floats(run.outputs["vector"]["data"]), as_floats(np.concatenate([as_words(e, lanes) for e in expected])))
    same(as_floats(run.outputs["statistics"]["data"]), as_floats(as_words(expected[1], lanes)))
    same(run.outputs["released"], [steps] * 4)
    if not stall:
        drain = Drain(params, KERNELS)
        ends = run.transfer_cycles["vector"][outputs // lanes - 1:count:outputs // lanes]
        assert ends[-1] - ends[0] == drain.words_cycles(rows - 1, outputs, DrainMode.GATED)


@simulations("design, head_dim", product(DESIGNS, [18, 64, 96, 100]), cocotb=[("w2q4p1", 18)])
def test_heads(simulation: SimulationClass, design: str, head_dim: int):
    params = params_of(design)
    if head_dim > params.max_head_dim:
        pytest.skip("beyond the design's max_head_dim")
    for stall in (0.0, 0.4):
        case = Case(simulation, design, f"heads {head_dim}", stall)
        rows, rng, lanes, q = case.rows, case.rng, params.vector_lanes, params.outputs
        padded, pairs = round_up(head_dim, 8), head_dim // 2
        cos, sin = (rng.normal(size=(rows, pairs)).astype(np.float32) for _ in range(2))
        words = -(-2 * pairs // lanes)
        table = np.full((rows, words * lanes), np.nan, np.float32)
        table[:, 0:2 * pairs:2], table[:, 1:2 * pairs:2] = cos, sin
        address = ((np.arange(rows)[:, None] << rotary_words_log2(params)) + np.arange(words)).reshape(-1)
        case.load({"rotary_load": {"address": address, "data": as_words(table, lanes)}})
        kinds = [DrainMode.QUERY, DrainMode.VALUE, DrainMode.KEY]
        heads = max(1, min(3, params.tile_steps * q // padded, 137 // 3 * q // padded))
        steps = -(-heads * padded // q)
        tiles, inputs, codes, scales, order, scale_order = [], [], [], [], [], []
        for number, mode in enumerate(kinds):
            sums = case.sums(steps)
            acc = sums[:, :heads * padded].reshape(rows, heads, padded)
            acc[..., head_dim:] = 0
            if number == 1:
                acc[0, 0] = 0  # a head of zeros
            base = number * steps
            case.load({"ring_load": ring_words(params, sums, base)})
            tiles.append((base, steps))
            inputs.append(dict(mode=mode, activation=0, first_head=5 + number, head_dim=head_dim, steps=steps,
                               outputs=heads * padded, scale=np.float32(0.2)))
            scale = golden.row_scales(case.scales[0], np.float32(0.2))
            found, bits = golden.drain_heads(acc, scale, cos, sin, mode != DrainMode.VALUE, head_dim)
            codes.append(found.reshape(-1, 16))
            scales.append(bits.reshape(-1))
            kind = {DrainMode.QUERY: 0, DrainMode.KEY: 1, DrainMode.VALUE: 2}[mode]
            order += [(kind, r, 5 + number + h, s) for r in range(rows) for h in range(heads)
                      for s in range(found.shape[-1] // 16)]
            scale_order += [(kind, r, 5 + number + h) for r in range(rows) for h in range(heads)]
        run = case.run({"tile": tile_fields(tiles), "command": commands(DRAIN, *inputs)},
                       {"heads": len(order), "head_scales": len(scale_order), "finished": 3, "released": 3})
        got = run.outputs["heads"]
        same(np.stack([got[k] for k in ("kind", "row", "head", "segment")], axis=1), order)
        expected = np.concatenate(codes)
        raw = np.stack([np.frombuffer(int(v).to_bytes(16, "little"), np.int8) for v in got["data"]])
        same(raw, expected)
        got = run.outputs["head_scales"]
        same(np.stack([got[k] for k in ("kind", "row", "head")], axis=1), scale_order)
        same(got["scale"], np.concatenate(scales))


@simulations("design", DESIGNS, cocotb=["w2q4p1"])
def test_cycles(simulation: SimulationClass, design: str):
    """A tile's words at full rate, and the constant that a command adds."""
    case = Case(simulation, design, "cycles", 0.0, rows=params_of(design).rows)
    params, rows = case.params, case.rows
    drain = Drain(params, KERNELS)
    lanes, latencies = params.vector_lanes, []
    for outputs in (40, 80):
        steps = -(-outputs // params.outputs)
        case.load({"ring_load": ring_words(params, case.sums(steps), 0)})
        run = case.run({"tile": tile_fields([(0, steps)]),
                        "command": commands(DRAIN, dict(mode=DrainMode.RESIDUAL, outputs=outputs, steps=steps,
                                                        row_words=96 // lanes, scale=1.0))},
                       {"residual": rows * outputs // lanes, "finished": 1})
        # From one row's last word to the next one's.
        ends = run.transfer_cycles["residual"][outputs // lanes - 1::outputs // lanes]
        same(np.diff(ends), drain.reader.row_cycles(outputs, False))
        words_cycles = drain.words_cycles(rows, outputs, DrainMode.RESIDUAL)
        latencies.append(int(run.transfer_cycles["residual"][-1] - words_cycles))
    assert latencies[0] == latencies[1]


@simulations("design, head_dim", product(DESIGNS, [18, 64]), cocotb=[("w2q4p1", 18)])
def test_heads_cycles(simulation: SimulationClass, design: str, head_dim: int):
    """A head more takes its words' cycles more, because scales are computed meanwhile."""
    case = Case(simulation, design, "heads cycles", 0.0, rows=params_of(design).rows)
    params, rows, padded = case.params, case.rows, round_up(head_dim, 8)
    drain = Drain(params, KERNELS)
    constants = []
    for heads in (1, 2):
        steps = -(-heads * padded // params.outputs)
        case.load({"ring_load": ring_words(params, case.sums(steps), 0)})
        segments = rows * heads * -(-head_dim // 16)
        run = case.run({"tile": tile_fields([(0, steps)]),
                        "command": commands(DRAIN, dict(mode=DrainMode.VALUE, outputs=heads * padded, steps=steps,
                                                        head_dim=head_dim, scale=1.0))},
                       {"heads": segments, "head_scales": rows * heads, "finished": 1})
        cycles = run.transfer_cycles["heads"][-1] - run.transfer_cycles["command"][0]
        constants.append(int(cycles - drain.words_cycles(rows, heads * padded, DrainMode.VALUE, head_dim)))
    # One row's last words may come a cycle or two apart where Q doesn't divide them.
    assert abs(constants[1] - constants[0]) <= 2, constants


def test_activations_need_a_common_kernel():
    alone = {name: kernel for name, kernel in KERNELS.items() if name != "gated_silu_relu_squared"}
    Drain(DesignParams(activations=("silu",)), alone).elaborate(None)
    with pytest.raises(ValueError, match="no kernel gated_silu_relu_squared"):
        Drain(DesignParams(), alone).elaborate(None)
