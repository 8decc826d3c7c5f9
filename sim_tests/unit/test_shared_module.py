"""rtl/streams/shared_module.py: one module for many instances, the same bytes every time, no name for two things."""

import re

import numpy as np
import pytest
from amaranth.hdl import DomainRenamer, Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hls_py.emit.verilator import share_functions
from rtl.streams import shared_module
from rtl.streams.shared_module import SharedModule, emit_design, emit_verilog
from sim_tests.harness.fast import VerilatedLibrary


class Delay(wiring.Component):
    """Clocked, with an array port: (a, previous a)."""

    def __init__(self, width: int):
        self.width = width
        super().__init__({"a": In(width), "pair": Out(data.ArrayLayout(width, 2))})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.pair[1].eq(self.a)
        m.d.comb += self.pair[0].eq(self.a)
        return m


class Add(wiring.Component):
    """Combinational, so its module has no clock; ``hidden`` is an attribute that isn't plain data."""

    def __init__(self, constant: int, hidden=None):
        self.constant = constant
        self.hidden = hidden
        super().__init__({"a": In(signed(8)), "sum": Out(signed(8))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.sum.eq(self.a + self.constant + (self.hidden() if self.hidden else 0))
        return m


class Stage(wiring.Component):
    """A shared module of shared modules: out = a[t] + a[t-1] + 3, a[t-1] through Delay."""

    def __init__(self, constant: int = 3):
        self.constant = constant
        super().__init__({"a": In(8), "out": Out(8)})

    def elaborate(self, platform):
        m = Module()
        delay, add = Delay(8), Add(self.constant)
        m.submodules.delay = SharedModule(delay, "delay8")
        m.submodules.add = SharedModule(add, "add")
        m.d.comb += [delay.a.eq(self.a), add.a.eq(delay.pair[1]), self.out.eq(add.sum + delay.pair[0])]
        return m


class Chain(wiring.Component):
    """Stages in a row."""

    def __init__(self, constants: list[int]):
        self.constants = constants
        super().__init__({"a": In(8), "out": Out(8)})

    def elaborate(self, platform):
        m = Module()
        value = self.a
        for number, constant in enumerate(self.constants):
            stage = Stage(constant)
            m.submodules[f"stage_{number}"] = SharedModule(stage, "stage")
            m.d.comb += stage.a.eq(value)
            value = stage.out
        m.d.comb += self.out.eq(value)
        return m


class Adders(wiring.Component):
    """Adders that all claim the name ``add``."""

    def __init__(self, adders: list[Add]):
        self.adders = adders
        super().__init__({"a": In(signed(8)), "out": Out(signed(8))})

    def elaborate(self, platform):
        m = Module()
        value = self.a
        for number, add in enumerate(self.adders):
            m.submodules[f"add_{number}"] = SharedModule(add, "add")
            m.d.comb += add.a.eq(value)
            value = add.sum
        m.d.comb += self.out.eq(value)
        return m


def chain(samples: np.ndarray, stages: int) -> np.ndarray:
    for _ in range(stages):
        samples = (samples + np.concatenate([[0], samples[:-1]]) + 3) % 256
    return samples


def test_each_module_is_written_once():
    text = emit_verilog(Chain([3] * 5), "top")
    assert re.findall(r"^module (\S+?)\(", text, re.MULTILINE) == ["add", "delay8", "stage", "top"]
    assert len(re.findall(r"^  stage \S+ \(", text, re.MULTILINE)) == 5
    assert emit_design(Chain([3]), "top").shared_modules == ("add", "delay8", "stage")


def test_same_bytes_every_time():
    assert emit_verilog(Chain([3] * 3), "top") == emit_verilog(Chain([3] * 3), "top")


def test_emitted_hardware_is_the_same_hardware():
    samples = np.random.default_rng(1).integers(0, 256, 500)
    got = VerilatedLibrary(Chain([3] * 3), "top").simulator().run_vectors({"a": samples}, ["out"])["out"]
    np.testing.assert_array_equal(got, chain(samples, 3))


def test_transparent_in_amaranth_simulation():
    samples = np.random.default_rng(2).integers(0, 256, 30)
    top, got = Chain([3] * 2), []

    async def bench(ctx):
        for sample in samples.tolist():
            ctx.set(top.a, sample)
            got.append(ctx.get(top.out))
            await ctx.tick()

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    np.testing.assert_array_equal(got, chain(samples, 2))


def test_one_name_for_two_components_is_refused():
    with pytest.raises(ValueError, match="'add'"):
        emit_verilog(Chain([3, 4]), "top")


@pytest.mark.parametrize("values, same", [((1, 1), True), ((1, 2), False)])
def test_attributes_that_cannot_be_compared_fall_back_to_the_text(values, same):
    adders = Adders([Add(3, hidden=lambda value=value: value) for value in values])
    if same:
        assert emit_verilog(adders, "top").count("module add(") == 1
    else:
        with pytest.raises(ValueError, match="'add'"):
            emit_verilog(adders, "top")


def test_equal_plain_parameters_are_elaborated_once(monkeypatch):
    emitted = []
    original = shared_module._to_verilog

    def watched(component, name, platform):
        emitted.append(name)
        return original(component, name, platform)

    monkeypatch.setattr(shared_module, "_to_verilog", watched)
    emit_verilog(Chain([3] * 6), "top")
    assert sorted(emitted) == ["add", "delay8", "stage", "top"]


@pytest.mark.parametrize("name", ["1st", "a.b", "a b", ""])
def test_names_are_identifiers(name):
    with pytest.raises(ValueError, match="identifier"):
        SharedModule(Add(1), name)


def test_name_of_the_top_is_taken():
    with pytest.raises(ValueError, match="top"):
        emit_verilog(Adders([Add(1)]), "add")


def test_only_the_main_clock_domain():
    class Other(wiring.Component):
        a: In(8)
        out: Out(8)

        def elaborate(self, platform):
            m = Module()
            m.d.other += self.out.eq(self.a)
            return m

    class Top(wiring.Component):
        a: In(8)
        out: Out(8)

        def elaborate(self, platform):
            m = Module()
            m.submodules.other = SharedModule(other := Other(), "other")
            m.d.comb += [other.a.eq(self.a), self.out.eq(other.out)]
            return m

    with pytest.raises(ValueError, match="clock domain"):
        emit_verilog(Top(), "top")


def test_renamed_domain_reaches_the_instance():
    class Top(wiring.Component):
        a: In(8)
        pair: Out(data.ArrayLayout(8, 2))

        def elaborate(self, platform):
            m = Module()
            delay = Delay(8)
            m.submodules.delay = DomainRenamer("fast")(SharedModule(delay, "delay8"))
            m.d.comb += [delay.a.eq(self.a), self.pair.eq(delay.pair)]
            return m

    assert re.search(r"\.clk\(fast_clk\)", emit_verilog(Top(), "top"))


def test_shared_functions_keep_every_input_but_the_clock():
    design = emit_design(Stage(), "top")
    lines = share_functions(design).splitlines()
    assert sorted(lines) == ['public_flat_rd -module "add" -var "a"', 'public_flat_rd -module "delay8" -var "a"',
                             'public_flat_rd -module "delay8" -var "rst"']
