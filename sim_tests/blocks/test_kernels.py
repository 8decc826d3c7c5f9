"""Every kernel's pipeline, bit for bit against the same kernel on NumPy arrays: values, tags, stalls, cycles."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from hls_py.dataflow import BFloat16, Bit, Float32, Int, Int32, Kernel, Scalar, UInt, kernel, select, table, to_float
from hls_py.kernels.registry import KERNELS
from rtl.contract.number_formats import signed_range
from sim_tests.blocks.test_float32 import specials
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.cocotb_simulation import CocotbSimulation
from sim_tests.harness.fast import VerilatedLibrary
from sim_tests.harness.simulation import StreamRun
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations


class Integers(NamedTuple):
    total: Int[20]  # type: ignore
    product: Int[30]  # type: ignore
    logic: UInt[16]  # type: ignore
    order: Bit
    moved: Int[24]  # type: ignore


@kernel
def integers(a: Int[16], b: Int[14], n: UInt[3]) -> Integers:  # type: ignore
    """Every integer primitive."""
    ends = table(n, tuple(range(-4, 4)), (7, 6, 5, 4, 3, 2, 1, 1 << 9))
    total = (a + b - 3) * 2 - (-a)
    logic = ((a[0:16] & 0xFF0) | (b[2:10] << 3) ^ 5) & 0xFFFF
    moved = ((a >> 3) << n) + (b >> n) + ends[0] + ends[1] * n
    return Integers(select(a < b, total, abs(b)), a * b, logic, ((a <= b) + (a != 0) + (b == 7))[0], moved)


@kernel
def bfloats(x: BFloat16, y: Scalar[BFloat16], z: Float32) -> {"sum": BFloat16, "scalar": Float32, "raw": Float32}:  # type: ignore # noqa: F821
    """bfloat16 ports, a result that lanes share, an argument handed through, comparisons, constants."""
    larger = select((z > x) | (z != z), z, -x)
    return {"sum": larger + y * 3.0, "scalar": (y * 0.25) * 1e-3, "raw": select(z >= y, z, abs(x))}


@kernel
def wide_integers(acc: Int32, factor: Scalar[Int32]) -> Float32:
    """64-bit products."""
    return to_float((acc * (factor >> 1)) >> 1)


CHECKED: dict[str, Kernel] = {**KERNELS, "integers": integers, "bfloats": bfloats, "wide_integers": wide_integers}

# lanes, ii, tag_bits: kernels. What runs at a high rate is checked with many lanes.
CONFIGURATIONS: dict[tuple[int, int, int], list[str]] = {
    (1, 1, 0): list(CHECKED),
    (2, 3, 5): list(CHECKED),
    (4, 1, 40): ["dequantise_residual", "norm_statistics", "norm_quantise", "dequantise_rotate", "quantise_int8",
                 "softmax_weight", "weight_quantise", "merge_output", "gated_silu", "bfloats"],
    (3, 2, 1): ["integers", "gated_silu", "gated_silu_relu_squared", "merge_factors", "dequantise_rotate",
                "norm_finalise"],
}
WORDS: dict[SimulationClass, int] = {VerilatedLibrary: 1500, CocotbSimulation: 100}


class SideBySide(wiring.Component):
    """Pipelines beside each other, so that all of them are compiled once."""

    def __init__(self, pipelines: dict[str, Any]):
        self.pipelines = pipelines
        super().__init__({name: Out(pipeline.signature) for name, pipeline in pipelines.items()})

    def elaborate(self, platform):
        m = Module()
        for name, pipeline in self.pipelines.items():
            m.submodules[name] = pipeline
            wiring.connect(m, wiring.flipped(getattr(self, name)), pipeline)
        return m


def random_floats(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Ordinary numbers, special values and any pattern; in half of the rows (first axis) ordinary ones only."""
    ordinary = (rng.choice([-1, 1], shape) * np.exp(rng.uniform(-9, 6, shape))).astype(np.float32)
    special = rng.choice(specials(), shape).view(np.float32)
    any_pattern = rng.integers(0, 1 << 32, shape, np.uint32).view(np.float32)
    kind = rng.choice(3, shape, p=[0.5, 0.3, 0.2])
    kind[rng.random(shape[0]) < 0.5] = 0
    return np.choose(kind, [ordinary.view(np.uint32), special.view(np.uint32), any_pattern.view(np.uint32)]).astype(
        np.uint32).view(np.float32)


def random_ints(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Limits, and numbers of any magnitude in low … high."""
    values = rng.integers(low, high, shape, np.int64, endpoint=True) >> rng.integers(0, 31, shape)
    ends = rng.choice(np.array([low, high, 0, min(1, high)]), shape)
    return np.where(rng.random(shape) < 0.1, ends, values)


def random_words(k: Kernel, lanes: int, count: int, seed: int) -> dict[str, np.ndarray]:
    """Arguments of ``count`` words: [count, lanes], scalars [count, 1]."""
    rng = np.random.default_rng(seed)
    words = {}
    for port in k.arguments:
        shape = (count, 1 if port.scalar else lanes)
        if port.type.is_float:
            words[port.name] = random_floats(rng, shape)
            if port.bfloat16:
                words[port.name] = (words[port.name].view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        else:
            words[port.name] = random_ints(rng, shape, port.type.low, port.type.high)
    return words


def to_wire(port: Any, values: np.ndarray) -> np.ndarray:
    """Field of a payload: raw bits."""
    if not port.type.is_float:
        return values.astype(np.int64) & ((1 << port.wire_bits) - 1)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return bits >> 16 if port.bfloat16 else bits


@dataclass(frozen=True)
class Simulated:
    """All kernels of one configuration, run at the same time: what went in, what came out."""

    pipelines: dict[str, Any]
    words: dict[str, dict[str, np.ndarray]]
    tags: np.ndarray
    run: StreamRun


@cache
def compiled(simulation: SimulationClass, configuration: tuple[int, int, int]) -> tuple[dict[str, Any], Simulation]:
    lanes, ii, tag_bits = configuration
    pipelines = {name: CHECKED[name].pipeline(lanes=lanes, ii=ii, tag_bits=tag_bits)
                 for name in CONFIGURATIONS[configuration]}
    return pipelines, simulation(SideBySide(pipelines), f"kernels_{lanes}_{ii}")


@cache
def simulated(simulation: SimulationClass, configuration: tuple[int, int, int], stall: float) -> Simulated:
    lanes, ii, tag_bits = configuration
    seed, count = bench_seed(), WORDS[simulation]
    pipelines, bench = compiled(simulation, configuration)
    kernels = {name: CHECKED[name] for name in pipelines}
    words = {name: random_words(k, lanes, count, seed) for name, k in kernels.items()}
    tags = np.random.default_rng(seed).integers(0, 1 << tag_bits, count)
    inputs = {}
    for name, k in kernels.items():
        inputs[f"{name}__i"] = {port.name: to_wire(port, data[:, 0] if port.scalar else data)
                                for port, data in zip(k.arguments, words[name].values(), strict=True)}
        if tag_bits:
            inputs[f"{name}__i"]["tag"] = tags
    run = bench.simulator().run_streams(inputs, {f"{name}__o": count for name in kernels}, stall=stall, seed=seed,
                                        max_cycles=count * ii * 5 + 1000, idle_cycles=100)
    return Simulated(pipelines, words, tags, run)


def cases(configurations: Iterable[tuple[int, int, int]]) -> list:
    return [pytest.param(configuration, name, id=f"lanes{configuration[0]}-ii{configuration[1]}-{name}")
            for configuration in configurations for name in CONFIGURATIONS[configuration]]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("configuration, name", cases(CONFIGURATIONS), cocotb=cases([(2, 3, 5)]))
def test_kernel(simulation: SimulationClass, name: str, configuration: tuple[int, int, int], stall: float):
    lanes, _, tag_bits = configuration
    bench = simulated(simulation, configuration, stall)
    k, pipeline, words = CHECKED[name], bench.pipelines[name], bench.words[name]
    results = k(**words)
    results = results if isinstance(results, tuple) else (results,)
    found = bench.run.outputs[f"{name}__o"]
    for port, expected in zip(k.results, results, strict=True):
        wire = to_wire(port, expected)
        wire = wire[:, 0] if found[port.name].ndim == 1 else np.broadcast_to(wire, (len(wire), lanes))
        wrong = np.argwhere(found[port.name] != wire)
        assert not len(wrong), (
            f"{len(wrong)} of {wire.size} {port.name} differ, the first at {wrong[0]} for "
            f"{ {n: w[wrong[0][0]] for n, w in words.items()} }: {int(found[port.name][tuple(wrong[0])]):#x}, "
            f"not {int(wire[tuple(wrong[0])]):#x} (seed {bench_seed()})")
    if tag_bits:
        assert np.array_equal(found["tag"], bench.tags)
    if not stall:
        taken, given = (bench.run.transfer_cycles[f"{name}__{end}"] for end in "io")
        assert (given - taken == pipeline.latency_cycles).all()
        assert (np.diff(taken) == pipeline.interval_cycles).all()


@pytest.mark.parametrize("name", CHECKED)
def test_sharing_needs_fewer_operators(name: str):
    """With ii = 4, four lanes need no more operators than one lane does at ii = 1."""
    one, shared = (CHECKED[name].pipeline(lanes=lanes, ii=ii).resources for lanes, ii in [(1, 1), (4, 4)])
    for kind in set(one) - {"delay_bits"}:
        assert shared[kind] <= one[kind]
    alone = CHECKED[name].pipeline(lanes=1, ii=8).resources
    for kind in set(one) - {"delay_bits"}:
        assert alone[kind] <= one[kind]


def test_narrower_arguments_shrink_the_pipeline():
    k = KERNELS["dequantise_residual"]
    wide, narrow = k.pipeline(), k.pipeline(ranges={"acc": signed_range(20)})
    assert len(narrow.i.p.acc[0]) == 20
    assert narrow.latency_cycles == wide.latency_cycles - 1  # 20 bits need no rounding


def test_names_and_text_are_the_same_each_time():
    from rtl.streams.shared_module import emit_verilog
    texts = {emit_verilog(KERNELS["softmax_weight"].pipeline(lanes=2, ii=2), "softmax_weight") for _ in range(2)}
    assert len(texts) == 1


@pytest.mark.parametrize("lanes, ii, tag_bits", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_refuses_impossible_parameters(lanes: int, ii: int, tag_bits: int):
    with pytest.raises(ValueError, match="must be at least"):
        KERNELS["row_scale"].pipeline(lanes=lanes, ii=ii, tag_bits=tag_bits)
