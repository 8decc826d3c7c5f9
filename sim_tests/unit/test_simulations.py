"""Both simulations of the harness: what they report is true, and their checks of streams do catch faults."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.streams.shared_module import emit_design
from sim_tests.harness.cocotb_simulation import CocotbSimulation
from sim_tests.harness.fast import VerilatedLibrary
from sim_tests.harness.verilated import build_verilated

PAYLOAD = data.StructLayout({"tag": 3, "value": 70})


class Buffer(wiring.Component):
    """One register; ``fault`` breaks its stream contract in a chosen way."""

    def __init__(self, fault: str = ""):
        self.fault = fault
        super().__init__({"source": In(stream.Signature(PAYLOAD)), "sink": Out(stream.Signature(PAYLOAD)),
                          "offset": In(8), "taken": Out(16)})

    def elaborate(self, platform):
        m = Module()
        full, age = Signal(), Signal(8)
        m.d.comb += [self.sink.valid.eq(full), self.source.ready.eq(~full | self.sink.ready)]
        m.d.sync += age.eq(age + 1)
        with m.If(self.sink.ready):
            m.d.sync += full.eq(0)
        with m.If(self.source.valid & self.source.ready):
            m.d.sync += [full.eq(1), age.eq(0), self.taken.eq(self.taken + 1), self.sink.p.tag.eq(self.source.p.tag),
                         self.sink.p.value.eq(self.source.p.value + self.offset)]
        match self.fault:
            case "falls":
                m.d.comb += self.sink.valid.eq(full & (age < 2))
            case "changes":
                with m.If(full & ~self.sink.ready):
                    m.d.sync += self.sink.p.tag.eq(self.sink.p.tag + 1)
            case "waits":
                m.d.comb += self.sink.valid.eq(full & self.sink.ready)
            case "surplus":
                with m.If((self.taken == 100) & ~full):
                    m.d.sync += full.eq(1)
        return m


def payloads(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    values = np.array([int.from_bytes(rng.bytes(9)) >> 2 for _ in range(count)], object)
    return {"tag": rng.integers(0, 8, count), "value": values}


SIMULATIONS = pytest.mark.parametrize("simulation", [VerilatedLibrary, CocotbSimulation])


@SIMULATIONS
@pytest.mark.parametrize("stall", [0.0, 0.4, {"sink": 0.7}])
def test_streams(simulation, stall):
    simulator = simulation(Buffer()).simulator()
    simulator.set("offset", 5)
    sent = payloads(100)
    run = simulator.run_streams({"source": sent}, {"sink": 100}, stall=stall, idle_cycles=20)
    np.testing.assert_array_equal(run.outputs["sink"]["tag"], sent["tag"])
    assert run.outputs["sink"]["value"].tolist() == [(int(v) + 5) % 2**70 for v in sent["value"]]
    assert simulator.get("taken") == 100
    source, sink = run.transfer_cycles["source"], run.transfer_cycles["sink"]
    assert (source < sink).all() and (np.diff(sink) > 0).all()
    assert run.cycles == sink[-1] + 1
    if not stall:
        assert run.cycles == 101 and source.tolist() == list(range(100))
    else:
        assert run.cycles > 150
    again = simulator.run_streams({"source": sent}, {"sink": 100}, stall=stall)
    assert simulator.get("taken") == 200 and again.cycles == run.cycles, "the same seed stalls the same way"


@pytest.mark.parametrize("simulation, fault, message", [
    (VerilatedLibrary, "falls", "valid fell"), (VerilatedLibrary, "changes", "payload changed"),
    (VerilatedLibrary, "waits", "valid depends on ready"), (VerilatedLibrary, "surplus", "surplus"),
    (CocotbSimulation, "falls", "valid fell"), (CocotbSimulation, "changes", "payload changed"),
    (CocotbSimulation, "surplus", "surplus")])
def test_faults_are_caught(simulation, fault: str, message: str):
    simulator = simulation(Buffer(fault)).simulator()
    with pytest.raises(AssertionError, match=f"sink: .*{message}.*seed 7"):
        simulator.run_streams({"source": payloads(100)}, {"sink": 100}, stall=0.5, seed=7, idle_cycles=5)


@SIMULATIONS
def test_gives_up(simulation):
    with pytest.raises(AssertionError, match=r"not done after 300 cycles .*source 100 of 100, sink 100 of 101"):
        simulation(Buffer()).simulator().run_streams(
            {"source": payloads(100)}, {"sink": 101}, max_cycles=300)


@SIMULATIONS
def test_ports_one_by_one(simulation):
    simulator = simulation(Buffer()).simulator()
    simulator.set("source__payload", {"tag": 6, "value": 2**70 - 1})
    simulator.set("source__valid", 1)
    assert (simulator.get("source__ready"), simulator.get("sink__valid")) == (1, 0)
    simulator.step()
    assert simulator.get("sink__payload") == {"tag": 6, "value": 2**70 - 1} and simulator.get("sink__valid") == 1
    assert simulator.get("source__ready") == 0 and simulator.cycle == 1
    simulator.reset()
    assert simulator.get("sink__valid") == 0 and simulator.cycle == 0
    with pytest.raises(ValueError, match="not an input"):
        simulator.set("taken", 1)
    with pytest.raises(ValueError, match="output of the component"):
        simulator.run_streams({"sink": payloads(1)}, {})


@pytest.mark.parametrize("driver, arguments, message", [("int main() { return missing; }", {}, "missing.*not declared"),
                                                        ("", {"verilator": ("--no-such",)}, "verilator.*no-such"),
                                                        ("", {"link": ("-lno-such",)}, "lno-such")])
def test_failing_build(driver: str, arguments: dict, message: str):
    for _ in range(2):  # a second time, too: it isn't taken for a finished one
        with pytest.raises(RuntimeError, match=f"(?s){message}"):
            build_verilated(emit_design(Buffer(), "buffer"), {"driver.cpp": driver}, "buffer", **arguments)
