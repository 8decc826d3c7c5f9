"""Bit-exact checks in volume: a component as a Verilated shared library, its streams served by a loop in C++.

cocotb moves some ten thousand transfers a second; this moves millions. Use it for values (random, exhaustive, extreme)
and for cycle counts; every bench runs a case of each kind under cocotb, too (``sim_tests.harness.cocotb_simulation``).
In runs with stalls the loop also checks that valid doesn't depend on ready.
"""

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from amaranth.lib import wiring

from rtl.streams.shared_module import EmittedDesign, emit_design
from sim_tests.harness.simulation import Ports, Simulator, StreamJob
from sim_tests.harness.verilated import build_verilated

DRIVER = Path(__file__).with_suffix(".cpp")
LIBRARY_FILE = "libtop.so"
LARGE_DESIGN = 300_000
"""Characters of Verilog. With -O1 the compiler takes three times as long, which benches of larger designs don't win
back: they run for some thousand cycles, those of small ones for millions."""

STREAM_ERRORS = {0: "", 1: "valid fell before the payload was taken", 2: "the payload changed before it was taken",
                 3: "valid depends on ready", 4: "a surplus payload is offered after the expected ones"}
FAILED = 2**64 - 1


class VerilatedLibrary(Ports):
    """``component`` compiled into a shared library, kept in build/sim_cache; any number of simulators of it."""

    def __init__(self, component: wiring.Component, name: str | None = None):
        super().__init__(component, name)
        self.port_numbers = {port: number for number, port in enumerate(self.shapes)}
        design = emit_design(component, self.name)
        folder = build_verilated(design, {"driver.cpp": DRIVER.read_text(), "ports.h": self._port_list(design)},
                                 LIBRARY_FILE, verilator=("--x-initial", "fast", "--noassert"), link=("-shared",),
                                 optimise="-O0" if len(design.verilog) > LARGE_DESIGN else "-O1")
        self.library = _declare(ctypes.CDLL(str(folder / LIBRARY_FILE)))

    def simulator(self) -> Simulator:
        """A fresh simulation, reset, with every input 0."""
        return _LibrarySimulator(self)

    def _port_list(self, design: EmittedDesign) -> str:
        """Text of ports.h: where Vtop keeps each port."""
        members = [f"top.{port.replace('__', '___05F')}" for port in self.shapes]  # Verilator's spelling of __
        entries = "".join(f"        {{reinterpret_cast<uint8_t*>(&{m}), sizeof({m})}},\n" for m in members)
        return (f"#define HAS_CLOCK {int(design.clocked)}\n"
                f"static std::vector<Port> list_ports(Vtop& top) {{\n    return {{\n{entries}    }};\n}}\n")


class _LibrarySimulator(Simulator):
    of: VerilatedLibrary

    def __init__(self, library: VerilatedLibrary):
        super().__init__(library)
        self._c = library.library
        self._simulation: ctypes.c_void_p | None = ctypes.c_void_p(self._c.simulation_new())
        self._ports = {name: np.ctypeslib.as_array(self._c.simulation_port(self._simulation, number),
                                                   (self._c.simulation_port_bytes(self._simulation, number),))
                       for name, number in library.port_numbers.items()}
        self.reset()

    def __del__(self):
        if getattr(self, "_simulation", None):
            self._ports.clear()
            self._c.simulation_free(self._simulation)
            self._simulation = None

    def step(self, cycles: int = 1) -> None:
        self._c.simulation_step(self._simulation, cycles)

    def reset(self) -> None:
        for port in self.of.inputs:
            self._ports[port][:] = 0
        self._c.simulation_reset(self._simulation)

    @property
    def cycle(self) -> int:
        return self._c.simulation_cycles(self._simulation)

    def _write(self, port: str, row: np.ndarray) -> None:
        self._ports[port][:len(row)] = row

    def _read(self, port: str) -> np.ndarray:
        self._c.simulation_settle(self._simulation)
        return self._ports[port]

    def _run_vectors(self, count: int, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        self._c.simulation_run_vectors(self._simulation, count, *self._arrays(inputs), *self._arrays(outputs))

    def _arrays(self, batches: Mapping[str, np.ndarray]) -> tuple:
        count = len(batches)
        return (count, (ctypes.c_uint32 * count)(*(self.of.port_numbers[port] for port in batches)),
                (ctypes.c_void_p * count)(*(batch.ctypes.data for batch in batches.values())),
                (ctypes.c_uint32 * count)(*(batch.shape[1] for batch in batches.values())))

    def _run_streams(self, jobs: list[StreamJob], max_cycles: int, idle_cycles: int) -> int | None:
        entries = (_StreamJob * len(jobs))()
        for entry, job in zip(entries, jobs):
            entry.valid, entry.ready, entry.payload = (self.of.port_numbers[f"{job.name}__{part}"]
                                                       for part in ("valid", "ready", "payload"))
            entry.is_input = int(job.is_input)
            entry.payload_bytes = job.batch.shape[1]
            entry.stall = min(int(job.stall * 2**32), 2**32 - 1)
            entry.random = job.seed
            entry.data = job.batch.ctypes.data
            entry.cycles = job.cycles.ctypes.data
            entry.count = len(job.batch)
        cycles = self._c.simulation_run_streams(self._simulation, len(jobs), entries, max_cycles, idle_cycles)
        for entry, job in zip(entries, jobs):
            job.done, job.error = entry.done, STREAM_ERRORS[entry.error]
        return None if cycles == FAILED else cycles


class _StreamJob(ctypes.Structure):  # mirrors fast.cpp
    _fields_ = [("valid", ctypes.c_uint32), ("ready", ctypes.c_uint32), ("payload", ctypes.c_uint32),
                ("is_input", ctypes.c_uint32), ("payload_bytes", ctypes.c_uint32), ("stall", ctypes.c_uint32),
                ("random", ctypes.c_uint64), ("data", ctypes.c_void_p), ("cycles", ctypes.c_void_p),
                ("count", ctypes.c_uint64), ("done", ctypes.c_uint64),
                ("offered", ctypes.c_uint32), ("error", ctypes.c_uint32)]


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, u32, u64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    for name, result, *arguments in [
            ("new", pointer), ("free", None, pointer), ("port", ctypes.POINTER(ctypes.c_uint8), pointer, u32),
            ("port_bytes", u64, pointer, u32), ("cycles", u64, pointer), ("settle", None, pointer),
            ("step", None, pointer, u64), ("reset", None, pointer),
            ("run_vectors", None, pointer, u64, *2 * (u32, pointer, pointer, pointer)),
            ("run_streams", u64, pointer, u32, pointer, u64, u64)]:
        function = getattr(library, f"simulation_{name}")
        function.restype, function.argtypes = result, arguments
    return library
