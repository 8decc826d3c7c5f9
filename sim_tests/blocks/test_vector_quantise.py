"""rtl/vector_unit/quantise.py, slice_assembler, with statistics and gains: values, order, stalls, cycles."""

from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hls_py.golden.vector_unit.quantise import quantise, to_slices
from hls_py.kernels.registry import KERNELS
from rtl.contract.command_words import QUANTISE, QuantiseSource, QuantiseTarget
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes
from rtl.vector_unit.gain_memory import GainMemory
from rtl.vector_unit.quantise import Quantise
from rtl.vector_unit.statistics import Statistics, statistics_word
from rtl.vector_unit.word_memory import WordMemory, float_words
from sim_tests.blocks.test_vector_statistics import gain_beats, word_fields
from sim_tests.blocks.vector_bench import as_words, commands, load_layout, same, seed_of, watched
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

# W, P, T, G: T·G of 15, 28 and 6 elements; then ports·16 bytes a beat
DESIGNS = {"w4p3tg15": (4, 3, 5, 3, "five_bit", 16), "w8p4tg28": (8, 4, 7, 4, "dense", 32),
           "w2p1tg6": (2, 1, 2, 3, "five_bit", 16)}


class Bench(wiring.Component):
    """Quantise with statistics, gains and both source memories (loaded by streams)."""

    def __init__(self, params: DesignParams):
        self.params = params
        word = float_words(params.vector_lanes)
        row = shapes.row_bits(params)
        super().__init__({
            "command": In(stream.Signature(shapes.COMMAND_BITS)), "rows": In(bits_for(params.rows)),
            "gains": In(stream.Signature(shapes.beat(params))), "words": In(stream.Signature(statistics_word(params))),
            "residual_load": In(stream.Signature(load_layout(params.residual_words, word))),
            "vector_load": In(stream.Signature(load_layout(params.vector_words, word))),
            "activation": Out(stream.Signature(shapes.activation_slice(params))), "activation_free": In(2),
            "head_operands": Out(stream.Signature(shapes.head_operand(params))),
            "row_scales": Out(stream.Signature(shapes.row_scale(params))),
            "finished": Out(stream.Signature(1)), "full": Out(2), "empty": Out(1),
            "scale_activation": In(1), "scale_row": In(row), "scale": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        params = self.params
        word = float_words(params.vector_lanes)
        m.submodules.quantise = quantise = Quantise(params, KERNELS)
        m.submodules.statistics = statistics = Statistics(params, KERNELS)
        m.submodules.gain_memory = gains = GainMemory(params)
        m.submodules.residual = residual = WordMemory(params.residual_words, word)
        m.submodules.vector = vector = WordMemory(params.vector_words, word)
        for name in ("command", "activation", "head_operands", "row_scales"):
            connect(m, flipped(getattr(self, name)), getattr(quantise, name))
        connect(m, flipped(self.gains), gains.gains)
        connect(m, flipped(self.words), statistics.words)
        connect(m, statistics.gains, gains.statistics)
        connect(m, quantise.gains, gains.quantise)
        connect(m, quantise.fold, statistics.fold)
        m.d.comb += [
            quantise.rows.eq(self.rows), statistics.rows.eq(self.rows), self.full.eq(gains.full),
            gains.quantise_claims.eq(quantise.gain_claim), gains.release.eq(quantise.gain_release),
            statistics.gain_full.eq(gains.full), quantise.gain_full.eq(gains.full), statistics.row.eq(quantise.row),
            quantise.sum_squares.eq(statistics.sum_squares), quantise.absmax.eq(statistics.absmax),
            quantise.activation_free.eq(self.activation_free), self.empty.eq(statistics.empty),
            quantise.scale.activation.eq(self.scale_activation), quantise.scale.row.eq(self.scale_row),
            self.scale.eq(quantise.scale.scale),
            quantise.read.data.eq(Mux(quantise.read.vector, vector.read.data, residual.read.data)),
        ]
        for memory, load in ((residual, self.residual_load), (vector, self.vector_load)):
            m.d.comb += [
                load.ready.eq(1), memory.write.enable.eq(load.valid), memory.write.address.eq(load.p.address),
                memory.write.data.eq(load.p.data), memory.read.enable.eq(quantise.read.enable),
                memory.read.address.eq(quantise.read.address),
            ]
        watched(m, "finished", self.finished, quantise.done, Cat(1))
        return m


def params_of(design: str) -> DesignParams:
    lanes, rows, tables, group, encoding, beat_bytes = DESIGNS[design]
    return DesignParams(rows=rows, tables=tables, outputs=2, group=group, encoding=encoding, vector_lanes=lanes,
                        ports=1, port_bytes=beat_bytes, max_hidden=96, max_inner=200, max_head_dim=64)


@cache
def compiled(simulation: SimulationClass, design: str) -> Simulation:
    return simulation(Bench(params_of(design)), f"quantise_bench_{design}")


def int8_of(payloads: np.ndarray, count: int) -> np.ndarray:
    return np.stack([np.frombuffer(int(v).to_bytes(count, "little"), np.int8) for v in payloads])


class Case:
    def __init__(self, simulation: SimulationClass, design: str, name: str, stall: float):
        self.params = params_of(design)
        self.stall = stall
        self.seed = seed_of(design, name, stall, bench_seed())
        self.rng = np.random.default_rng(self.seed)
        self.sim = compiled(simulation, design).simulator()
        self.rows = int(self.rng.integers(1, self.params.rows + 1))
        self.sim.set("rows", self.rows)

    def write(self, source: QuantiseSource, x: np.ndarray, row_words: int, has_norm: bool, gain: np.ndarray | None,
              bank: int) -> None:
        """A vector into its memory, its words into the statistics, its gains into a bank."""
        lanes = self.params.vector_lanes
        words = x.shape[1] // lanes
        address = (np.arange(self.rows)[:, None] * row_words + np.arange(words)).reshape(-1)
        inputs = {f"{source.name.lower()}_load": {"address": address, "data": as_words(x, lanes)},
                  "words": word_fields(x, lanes, has_norm, bank, 2, self.seed)}
        if gain is not None:
            inputs["gains"] = gain_beats(self.params, gain, bank)
        self.sim.run_streams(inputs, {})
        if not self.stall:
            self.sim.step(40)

    def values(self, length: int) -> np.ndarray:
        x = self.rng.normal(size=(self.rows, length)).astype(np.float32) * 3
        x[:, length - 3:] = 0  # padding
        if self.stall:
            x[0, :4] = [1e-41, -0.0, 1e18, -1e18]
        return x


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("design", DESIGNS, cocotb=["w2p1tg6"])
def test_activations(simulation: SimulationClass, design: str, stall: float):
    case = Case(simulation, design, "activations", stall)
    params, sim, rows = case.params, case.sim, case.rows
    lanes, elements = params.vector_lanes, params.slice_elements
    for number, (length, source, has_norm) in enumerate([
            (96, QuantiseSource.RESIDUAL, True), (200, QuantiseSource.VECTOR, False),
            (136, QuantiseSource.VECTOR, True), (72, QuantiseSource.RESIDUAL, True)]):
        buffer, bank = number & 1, number // 2 & 1
        x, row_words = case.values(length), length // lanes + (number & 1 if length < 200 else 0)
        if number == 3:
            x[rows - 1] = 0
        gain = case.rng.normal(size=length).astype(np.float32) if has_norm else None
        case.write(source, x, row_words, has_norm, gain, bank)
        slices = -(-length // elements) + number % 2  # perhaps one of zeros
        command = commands(QUANTISE, dict(
            source=source, target=QuantiseTarget.ACTIVATION, activation=buffer, has_norm=int(has_norm), gain_bank=bank,
            words=length // lanes, row_words=row_words, slices=slices, inverse_count=np.float32(1 / (length - 3)),
            epsilon=np.float32(1e-5)))
        sim.set("activation_free", 1 << buffer)
        run = sim.run_streams({"command": command}, {"activation": slices * rows, "finished": 1},
                              stall={"activation": stall} if stall else 0.0, seed=case.seed, idle_cycles=20)
        codes, scale = quantise(x, gain, has_norm, np.float32(1 / (length - 3)), 1e-5)
        got = run.outputs["activation"]
        same(int8_of(got["data"], elements), to_slices(codes, elements, slices).reshape(-1, elements))
        same(got["slice"], np.repeat(np.arange(slices), rows))
        same(got["row"], np.tile(np.arange(rows), slices))
        assert (got["buffer"] == buffer).all()
        for r in range(rows):
            sim.set("scale_activation", buffer)
            sim.set("scale_row", r)
            same(np.array(sim.get("scale"), np.uint32).view(np.float32), scale[r])
        assert sim.get("full") == 0, "the gains are released"
        if not stall:
            block = Quantise(params, KERNELS)
            times = run.transfer_cycles["activation"]
            assert block.first_slice_cycles(rows, has_norm) == times[0] - run.transfer_cycles["command"][0], number
            assert times[-1] - times[0] == block.slice_cycles(rows, slices) - block.slice_cycles(1, 1)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("design", DESIGNS, cocotb=["w2p1tg6"])
def test_head_operands(simulation: SimulationClass, design: str, stall: float):
    case = Case(simulation, design, "head", stall)
    params, sim, rows = case.params, case.sim, case.rows
    lanes, length = params.vector_lanes, 88
    x, gain = case.values(length), case.rng.normal(size=length).astype(np.float32)
    case.write(QuantiseSource.RESIDUAL, x, length // lanes, True, gain, 1)
    segments = -(-length // 16)
    command = commands(QUANTISE, dict(
        source=QuantiseSource.RESIDUAL, target=QuantiseTarget.HEAD, has_norm=1, gain_bank=1, words=length // lanes,
        row_words=length // lanes, slices=segments, inverse_count=np.float32(1 / 85), epsilon=np.float32(1e-6)))
    run = sim.run_streams({"command": command}, {"head_operands": rows * segments, "row_scales": rows, "finished": 1},
                          stall={"head_operands": stall, "row_scales": stall} if stall else 0.0, seed=case.seed,
                          idle_cycles=20)
    codes, scale = quantise(x, gain, True, np.float32(1 / 85), 1e-6)
    got = run.outputs["head_operands"]
    same(int8_of(got["data"], 16), to_slices(codes, 16, segments).reshape(-1, 16))
    same(got["segment"], np.repeat(np.arange(segments), rows))
    same(got["row"], np.tile(np.arange(rows), segments))
    same(run.outputs["row_scales"]["row"], np.arange(rows))
    same(run.outputs["row_scales"]["scale"].astype(np.uint32).view(np.float32), scale)
    if not stall:
        times = run.transfer_cycles["head_operands"]
        block = Quantise(params, KERNELS)
        assert times[-1] - times[0] == block.slice_cycles(rows, segments, for_head=True) - 16 // lanes


@simulations()
def test_waits_for_its_buffer(simulation: SimulationClass):
    case = Case(simulation, "w2p1tg6", "buffer", 0.0)
    sim, params = case.sim, case.params
    x = case.values(24)
    case.write(QuantiseSource.VECTOR, x, 12, False, None, 0)
    command = commands(QUANTISE, dict(source=QuantiseSource.VECTOR, activation=1, words=12, row_words=12, slices=4))
    sim.set("activation_free", 1)
    with pytest.raises(AssertionError, match="not done"):
        sim.run_streams({"command": command}, {"activation": 4}, max_cycles=300)
    sim.set("activation_free", 2)
    run = sim.run_streams({}, {"activation": 4 * case.rows})
    codes, _ = quantise(x, None, False, 0.0, 0)
    same(int8_of(run.outputs["activation"]["data"], 6), to_slices(codes, 6, 4).reshape(-1, params.slice_elements))
