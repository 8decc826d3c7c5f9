"""rtl/float32 operators, bit for bit against NumPy: every pair of special values and a million random ones.

Under cocotb a few thousand of them.
"""

from functools import cache
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hls_py.golden import float32
from rtl.float32 import bits as circuits
from rtl.float32 import compare
from rtl.float32.add import FloatAdd
from rtl.float32.from_int import FloatFromInt
from rtl.float32.int_multiply import IntMultiply
from rtl.float32.lookup import Lookup
from rtl.float32.multiply import FloatMultiply
from rtl.float32.to_fixed import FloatToFixed
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.fast import VerilatedLibrary
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

RANDOM_COUNT = 1_000_000
COCOTB_COUNTS = 500, 2500

# name, then the operator's parameters
FROM_INT: list[tuple] = [(f"from_int{n}", *parameters) for n, parameters in enumerate([
    (32, True), (8, True), (21, False), (31, False), (25, True), (1, False), (47, True), (64, False)])]
TO_FIXED: list[tuple] = [(f"to_fixed{n}", *parameters) for n, parameters in enumerate([
    (0, -127, 127), (0, 0, 16383), (23, 0, (1 << 28) - 1), (22, 0, (1 << 28) - 1), (0, -128, 127), (0, 0, 1),
    (-3, -1000, 70_000), (5, -(1 << 31), (1 << 31) - 1), (40, -3, 5)])]
INT_MULTIPLY: list[tuple] = [(f"int_multiply{n}", *parameters) for n, parameters in enumerate([
    (25, True, 18, True), (16, False, 14, False), (7, False, 30, True), (1, False, 1, True)])]
LOOKUP = [("lookup0", 3, 5), ("lookup1", 128, 63), ("lookup2", 512, 71), ("lookup3", 200, 64)]  # entries, bits

def specials() -> np.ndarray:
    """Zeros, subnormals, limits, powers of two and their neighbours, infinities, NaNs; both signs."""
    exponents = np.array([0, 1, 2, 24, 25, 63, 64, 65, 102, 103, 104, 125, 126, 127, 128, 129, 133, 134, 149, 150, 151,
                          152, 158, 190, 191, 253, 254, 255], np.uint32) << 23
    fractions = np.array([0, 1, 2, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFE, 0x7FFFFF], np.uint32)
    magnitudes = (exponents[:, None] | fractions).reshape(-1)
    return np.concatenate([magnitudes, magnitudes | np.uint32(1 << 31)])


def random_pairs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Any patterns; near exponents with few-bit fractions (ties, cancellation); products near the smallest number."""
    a, b = rng.integers(0, 1 << 32, (2, count), np.uint32)
    near, sparse, small = np.array_split(rng.permutation(count), 4)[:3]
    exponent = np.clip((a[near] >> 23 & 0xFF) + rng.integers(-26, 27, len(near)), 0, 255)
    b[near] = b[near] & 0x807FFFFF | (exponent << 23).astype(np.uint32)
    keep = np.uint32(0xFFFFFFFF) << rng.integers(10, 23, len(sparse), np.uint32)
    a[sparse], b[sparse] = a[sparse] & keep, b[sparse] & keep
    exponent = np.clip(127 - (a[small] >> 23 & 0xFF).astype(int) + rng.integers(-2, 3, len(small)), 0, 255)
    b[small] = b[small] & 0x807FFFFF | (exponent << 23).astype(np.uint32)
    return a, b


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    """All pairs of specials, then random pairs, as bit patterns."""
    special = specials()
    a, b = random_pairs(np.random.default_rng(bench_seed()), RANDOM_COUNT)
    return (np.concatenate([np.repeat(special, len(special)), a]), np.concatenate([np.tile(special, len(special)), b]))


def canonical(bits: np.ndarray) -> np.ndarray:
    return float32.canonical(bits.view(np.float32))


class SideBySide(wiring.Component):
    """Operators beside each other, so that all of them are compiled once; port ``x`` of operator ``n`` is ``n__x``."""

    def __init__(self, operators: dict[str, wiring.Component]):
        self.operators = operators
        super().__init__({name: Out(operator.signature) for name, operator in operators.items()})

    def elaborate(self, platform):
        m = Module()
        for name, operator in self.operators.items():
            m.submodules[name] = operator
            wiring.connect(m, wiring.flipped(getattr(self, name)), operator)
        return m


@cache
def operators() -> dict[str, Any]:
    return {
        "add": FloatAdd(), "multiply": FloatMultiply(),
        **{name: FloatFromInt(*parameters) for name, *parameters in FROM_INT},
        **{name: FloatToFixed(*parameters) for name, *parameters in TO_FIXED},
        **{name: IntMultiply(a, a_signed, b, b_signed, a + b) for name, a, a_signed, b, b_signed in INT_MULTIPLY},
        **{name: Lookup([pow(bits, entry, (1 << bits) - 5) for entry in range(entries)], bits)
           for name, entries, bits in LOOKUP},
    }


@cache
def compiled(simulation: SimulationClass) -> Simulation:
    return simulation(SideBySide(operators()), "float32_operators")


def volume(simulation: SimulationClass, *arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays; for cocotb the same few elements of each: the first ones, which are special, and random ones."""
    if simulation is VerilatedLibrary:
        return list(arrays)
    first, others = COCOTB_COUNTS
    count = len(arrays[0])
    chosen = [*range(min(first, count)), *np.random.default_rng(bench_seed()).choice(count, min(others, count), False)]
    return [array[chosen] for array in arrays]


def run(simulation: SimulationClass, name: str, **inputs: np.ndarray) -> np.ndarray:
    """Output of a pipelined operator for each input, ``enable`` high throughout."""
    latency = operators()[name].latency_cycles
    simulator = compiled(simulation).simulator()
    simulator.set(f"{name}__enable", 1)
    padded = {f"{name}__{port}": np.concatenate([values, np.zeros(latency, values.dtype)])
              for port, values in inputs.items()}
    return simulator.run_vectors(padded, [f"{name}__o"])[f"{name}__o"][latency:]


def assert_equal(found: np.ndarray, expected: np.ndarray, **inputs: np.ndarray) -> None:
    wrong = np.flatnonzero(found != expected)
    if len(wrong):
        first = wrong[0]
        operands = ", ".join(f"{name}={int(values[first]):#x}" for name, values in inputs.items())
        raise AssertionError(f"{len(wrong)} of {len(found)} differ, the first for {operands}: "
                             f"{int(found[first]):#x}, not {int(expected[first]):#x} (seed {bench_seed()})")


TWO_OPERANDS = [("add", float32.add), ("multiply", float32.multiply)]


@simulations("name, golden", TWO_OPERANDS)
def test_two_operand_operators(pairs, simulation: SimulationClass, name: str, golden):
    a, b = volume(simulation, *pairs)
    with np.errstate(all="ignore"):
        expected = golden(canonical(a), canonical(b)).view(np.uint32)
    assert_equal(run(simulation, name, a=a, b=b), expected, a=a, b=b)


@simulations("name, golden", TWO_OPERANDS)
def test_enable_freezes(simulation: SimulationClass, name: str, golden):
    """With ``enable`` low now and then, results are those of the enabled cycles only."""
    rng = np.random.default_rng(bench_seed())
    count, latency = 5000, operators()[name].latency_cycles
    a, b = random_pairs(rng, count)
    enable = rng.integers(0, 2, count)
    found = compiled(simulation).simulator().run_vectors(
        {f"{name}__enable": enable, f"{name}__a": a, f"{name}__b": b}, [f"{name}__o"])[f"{name}__o"]
    taken = np.flatnonzero(enable)
    with np.errstate(all="ignore"):
        expected = golden(canonical(a[taken]), canonical(b[taken])).view(np.uint32)
    shown = taken[latency - 1:] + 1  # the cycle after an operand's last enabled one
    shown = shown[shown < count]
    assert np.array_equal(found[shown], expected[:len(shown)])


@simulations("name, bits, signed", FROM_INT)
def test_from_int(simulation: SimulationClass, name: str, bits: int, signed: bool):
    rng = np.random.default_rng(bench_seed())
    low = -(1 << bits - 1) if signed else 0
    high = low + (1 << bits) - 1
    values = [low, high, 0, *(sign * ((1 << p) + d) for p in range(bits) for d in (-1, 0, 1) for sign in (1, -1))]
    values = [v for v in values if low <= v <= high]
    dtype = np.int64 if signed else np.uint64
    random = rng.integers(low, high, 300_000, dtype, endpoint=True) >> rng.integers(0, bits, 300_000, dtype)
    ties = rng.integers(low >> 8, high >> 8, 100_000, dtype, endpoint=True) << dtype(8) if bits > 8 else random[:0]
    a, = volume(simulation, np.concatenate([np.array(values, dtype), random, ties.astype(dtype)]))
    assert_equal(run(simulation, name, a=a), a.astype(np.float32).view(np.uint32), a=a)


@simulations("name, fraction_bits, low, high", TO_FIXED)
def test_to_fixed(pairs, simulation: SimulationClass, name: str, fraction_bits: int, low: int, high: int):
    rng = np.random.default_rng(bench_seed())
    around = rng.integers(min(low, -high) - 2, max(high, -low) + 3, 400_000) + rng.choice([0, 0.25, 0.5, 0.75], 400_000)
    around = np.nextafter(around.astype(np.float32), np.float32(0), where=rng.random(400_000) < 0.3,
                          out=around.astype(np.float32))
    near_limits = (around * 2.0**-fraction_bits).astype(np.float32).view(np.uint32)
    a, = volume(simulation, np.concatenate([specials(), near_limits, pairs[0][:200_000]]))
    with np.errstate(all="ignore"):
        expected = float32.to_fixed(canonical(a), fraction_bits, low, high)
    assert_equal(run(simulation, name, a=a), expected, a=a)


class Combinational(wiring.Component):
    """The combinational circuits of bits.py and compare.py side by side, on canonical operands."""

    latency_cycles = 0
    POWERS = (-30, -1, 0, 7, 127, -126)

    def __init__(self):
        self.two = {name: getattr(compare, name) for name in ("maximum", "minimum", "less", "less_equal", "equal")}
        scaled = {f"scaled{n}": Out(32) for n in range(len(self.POWERS))}
        super().__init__({"a": In(32), "b": In(32), "canonical": Out(32), "negate": Out(32), **scaled,
                          **{name: Out(32 if name.endswith("imum") else 1) for name in self.two}})

    def elaborate(self, platform):
        m = Module()
        a, b = (circuits.wire(m, circuits.canonical(x), "canonical") for x in (self.a, self.b))
        m.d.comb += [self.canonical.eq(a), self.negate.eq(circuits.negate(a))]
        for name, circuit in self.two.items():
            m.d.comb += getattr(self, name).eq(circuit(m, a, b))
        for n, power in enumerate(self.POWERS):
            m.d.comb += getattr(self, f"scaled{n}").eq(circuits.scale_exponent(a, power))
        return m


@simulations()
def test_combinational_circuits(pairs, simulation: SimulationClass):
    a, b = volume(simulation, *pairs)
    component = Combinational()
    outputs = [name for name in component.signature.members if name not in "ab"]
    found = simulation(component).simulator().run_vectors({"a": a, "b": b}, outputs)
    x, y = canonical(a), canonical(b)
    with np.errstate(all="ignore"):
        expected = {"canonical": x, "negate": float32.negate(x), "maximum": float32.maximum(x, y),
                    "minimum": float32.minimum(x, y)}
        expected |= {f"scaled{n}": float32.scale_exponent(x, power) for n, power in enumerate(component.POWERS)}
    for name, values in expected.items():
        assert_equal(found[name], values.view(np.uint32), a=a, b=b)
    for name, values in {"less": x < y, "less_equal": x <= y, "equal": x == y}.items():
        assert_equal(found[name], values, a=a, b=b)


@simulations("name, entries, bits", LOOKUP)
def test_lookup(simulation: SimulationClass, name: str, entries: int, bits: int):
    contents = operators()[name].contents
    index = np.random.default_rng(bench_seed()).integers(0, entries, 2000)
    assert [int(word) for word in run(simulation, name, index=index)] == [contents[n] for n in index]


@simulations("name, a_bits, a_signed, b_bits, b_signed", INT_MULTIPLY)
def test_int_multiply(simulation: SimulationClass, name: str, a_bits: int, a_signed: bool, b_bits: int,
                      b_signed: bool):
    rng = np.random.default_rng(bench_seed())

    def values(bits: int, signed: bool) -> np.ndarray:
        low = -(1 << bits - 1) if signed else 0
        ends = np.array([low, low + (1 << bits) - 1, 0])
        return np.concatenate([rng.choice(ends, 100), rng.integers(low, low + (1 << bits), 100_000)])

    a, b = volume(simulation, values(a_bits, a_signed), values(b_bits, b_signed))
    assert_equal(run(simulation, name, a=a, b=b), a * b & (1 << a_bits + b_bits) - 1, a=a, b=b)


@pytest.mark.parametrize("make, message", [
    (lambda: FloatFromInt(65, True), "bits is 65"), (lambda: FloatToFixed(0, 1, 5), "holds 0"),
    (lambda: FloatToFixed(0, 0, 1 << 41), "beyond")])
def test_refuses_impossible_parameters(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_shapes_are_as_narrow_as_the_range():
    assert Shape.cast(FloatToFixed(0, -127, 127).o.shape()) == Shape(8, True)
    assert Shape.cast(FloatToFixed(0, 0, 16383).o.shape()) == Shape(14, False)
