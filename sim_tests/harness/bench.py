"""Run a cocotb bench on a component: emit, build once, simulate, and say clearly what failed.

A block's bench and its pytest entry live in one file:

    @cocotb.test()
    async def equals_golden(dut):
        bench = await reset(dut)                                  # clock running, inputs 0, out of reset
        items = make_items(bench.rows, bench.seed)
        cocotb.start_soon(send(dut, "logits", items, stalls(bench.stall, bench.seed)))
        got = await receive(dut, "token", bench.rows, stalls(bench.stall, bench.seed + 1))
        assert got == golden(items)

    @pytest.mark.parametrize("stall", [0.0, 0.5])
    @pytest.mark.parametrize("index_bits, logits", [(1, 1), (5, 32), (17, 301)])
    def test_argmax(index_bits, logits, stall):
        run_bench(Argmax(index_bits), __name__, rows=20, logits=logits, stall=stall)

The compiled simulation is kept in ``build/sim_cache`` under a hash of the Verilog and the flags: parameter sets that
share a design share it, and so does the next run. Every bench has a ``seed``: 1, or what the environment variable
``TELLME_SEED`` says (a number, or ``random``); it is in the failure message with all other parameters.
``WAVES=1`` builds with tracing and leaves ``dump.vcd`` in the folder that the failure message names.
"""

import hashlib
import json
import os
import random
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cocotb
from amaranth.lib import wiring
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

from hls_py.emit.verilator import build_root
from rtl.streams.shared_module import emit_design
from sim_tests.harness.ports import Ports
from sim_tests.harness.streams import CLOCK_NS
from sim_tests.harness.verilated import build_verilated

PARAMETERS_VARIABLE = "TELLME_BENCH"


def bench_seed() -> int:
    """The seed that benches use when they aren't given one."""
    text = os.environ.get("TELLME_SEED", "1")
    return random.SystemRandom().randrange(1 << 31) if text == "random" else int(text)


def run_bench(component: wiring.Component, test_module: str, *, name: str | None = None, testcase: str | None = None,
              **parameters: Any) -> None:
    """Simulate ``component`` under the cocotb tests of ``test_module``; AssertionError says which failed and why.

    Parameters
    ----------
    test_module : dotted name of the module with the ``@cocotb.test()`` functions, usually ``__name__``.
    name        : top module of the Verilog; the class's name in lower case unless given.
    testcase    : run only the cocotb test of this name (a file with several benches for several components).
    parameters  : what the bench finds as attributes of ``bench_parameters()``; JSON values. ``seed`` is added.
    """
    __tracebackhide__ = True
    parameters.setdefault("seed", bench_seed())
    name = name or type(component).__name__.lower()
    folder = build_simulation(component, name)

    settings = json.dumps({"parameters": parameters, "inputs": sorted(Ports(component).inputs)}, sort_keys=True)
    run_key = hashlib.sha256(f"{test_module}{testcase}{settings}{folder}".encode()).hexdigest()[:12]
    run_folder = build_root() / "benches" / f"{test_module.rsplit('.', 1)[-1]}-{run_key}"
    run_folder.mkdir(parents=True, exist_ok=True)
    log, results = run_folder / "simulation.log", run_folder / "results.xml"
    ended_badly = False
    try:
        run_simulation(name, folder, run_folder, test_module, {PARAMETERS_VARIABLE: settings}, testcase,
                       parameters["seed"])
    except SystemExit:
        ended_badly = True
    problems = failures_of(results)
    if problems or ended_badly:
        text = "\n".join(problems) or log.read_text(errors="replace")[-4000:]
        raise AssertionError(f"{test_module} on {name} with {parameters}\n{text}\nin {run_folder}")


def waves_wanted() -> bool:
    """Whether ``WAVES`` asks for traces."""
    return os.environ.get("WAVES", "0") not in ("", "0")


def run_simulation(name: str, folder: Path, run_folder: Path, test_module: str, environment: dict[str, str],
                   testcase: str | None = None, seed: int | None = None) -> None:
    """Run the simulation that was built in ``folder``; leaves results.xml, simulation.log and waves in ``run_folder``.

    Raises ``SystemExit`` when the simulator or a test fails.
    """
    _runner().test(hdl_toplevel=name, hdl_toplevel_lang="verilog", test_module=test_module, testcase=testcase,
                   build_dir=folder, test_dir=run_folder, results_xml=str(run_folder / "results.xml"),
                   log_file=run_folder / "simulation.log", waves=waves_wanted(), seed=seed,
                   extra_env={"COCOTB_LOG_LEVEL": os.environ.get("COCOTB_LOG_LEVEL", "WARNING"),
                              "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # cocotb imports pytest for its assertions only
                              "PYTHONPATH": os.pathsep.join(sys.path), **environment})


def build_simulation(component: wiring.Component, name: str) -> Path:
    """Folder with the cocotb simulation of ``component``, compiled now unless an equal one was compiled before.

    Not built by cocotb's runner, which makes every signal of the design public: three times the C++, and slower.
    """
    from cocotb_tools import config  # not needed by a running bench
    design = emit_design(component, name)
    return build_verilated(
        design, {"driver.cpp": (config.share_dir / "lib/verilator/verilator.cpp").read_text()}, name,
        verilator=("--vpi", "--timescale", "1ns/1ps", *(["--trace"] if waves_wanted() else [])),
        hints=_public_ports(Ports(component, name), design.clocked),
        link=(f"-Wl,-rpath,{config.libs_dir}", f"-L{config.libs_dir}", "-lcocotbvpi_verilator"))


def _public_ports(ports: Ports, clocked: bool) -> str:
    """Lines of a .vlt file that let cocotb reach the top module's ports."""
    names = [*(("clk", "rst") if clocked else ()), *ports.shapes]
    return "".join(f'public_flat_rw -module "{ports.name}" -var "{n}"\n' for n in names)


def bench_parameters() -> SimpleNamespace:
    """Inside a bench: what ``run_bench`` was given, as attributes."""
    return SimpleNamespace(**json.loads(os.environ[PARAMETERS_VARIABLE])["parameters"])


async def reset(dut) -> SimpleNamespace:
    """Drive every input 0, start the clock, reset for two cycles; returns ``bench_parameters()``.

    A bench that is not over after ``max_cycles`` (a parameter, 1,000,000 unless given) fails, rather than hang.
    Works for a component without a clock, too.
    """
    bench = bench_parameters()
    cocotb.start_soon(_give_up_after(getattr(bench, "max_cycles", 1_000_000)))
    for port in json.loads(os.environ[PARAMETERS_VARIABLE])["inputs"]:
        getattr(dut, port).value = 0
    if hasattr(dut, "clk"):
        Clock(dut.clk, CLOCK_NS, "ns").start()
        dut.rst.value = 1
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.clk)
    return bench


async def _give_up_after(cycles: int) -> None:
    await Timer(cycles * CLOCK_NS, "ns")
    raise TimeoutError(f"the bench is not over after {cycles} cycles")


def _runner():
    from cocotb_tools.runner import get_runner  # imports every simulator; a running bench doesn't need it
    return get_runner("verilator")


def failures_of(results: Path) -> list[str]:
    """One text for each failed test in cocotb's results file; an unreadable file is a failure."""
    if not results.exists():
        return ["the simulator left no results"]
    cases = list(ET.parse(results).getroot().iter("testcase"))
    texts = [] if cases else ["no cocotb test ran"]
    for case in cases:
        for kind in ("failure", "error"):
            for failure in case.findall(kind):
                message = failure.get("error_msg") or failure.get("message") or ""
                body = re.sub(r"\x1b\[[0-9;]*m", "", failure.text or "")
                texts.append(f"{case.get('name')}: {failure.get('error_type') or failure.get('type') or kind}: "
                             f"{message}\n{body}".rstrip())
    return texts
