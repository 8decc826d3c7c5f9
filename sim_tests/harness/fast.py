"""Bit-exact checks in volume: a component as a Verilated shared library, its streams served by a loop in C++.

cocotb moves some ten thousand transfers a second; this moves millions. Use it for values (random, exhaustive, extreme)
and for cycle counts; cocotb benches stay the reference for behaviour.

    argmax = VerilatedLibrary(Argmax(index_bits=17))         # compiled once, kept in build/sim_cache
    sim = argmax.simulator()                                 # out of reset, every input 0
    sim.set("scale", 3)                                      # ports that aren't streams
    run = sim.run_streams({"logits": {"bits": bits, "last": last}}, {"token": 1000}, stall=0.3)
    run.outputs["token"]["index"]                            # array [1000]
    run.cycles                                               # cycles from the first to the last transfer, inclusive
    run.transfer_cycles["token"]                             # cycle of each transfer, counted from the call

    sim.run_vectors({"a": a, "b": b}, ["product"])           # one vector a cycle, outputs read before the clock edge
    sim.get("count"), sim.step(10), sim.reset()

Field layouts are those of ``sim_tests.harness.payload``. While streams run, their contract is checked: an offered
payload stays and doesn't change; in runs with stalls also that valid doesn't depend on ready. ``idle_cycles`` adds a
look for surplus outputs. Every failure is an AssertionError that names the seed and how far each stream came.
"""

import ctypes
import random
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import wiring

from hls_py.emit.verilator import (
    LINT_WAIVERS,
    build_once,
    tool_environment,
    verilator_command,
    verilator_version,
    write_sources,
)
from rtl.streams.shared_module import EmittedDesign, emit_design
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.payload import pack, unpack, width_bytes

SHIM = Path(__file__).with_suffix(".cpp")
BUILD_ARGS = ("--cc", "--exe", "--build", "-j", "2", "--prefix", "Vtop", "-o", "libtop.so", *LINT_WAIVERS, "-Wno-lint",
              "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-MAKEFLAGS", "OPT_FAST=-O2",
              "-CFLAGS", "-fPIC", "-LDFLAGS", "-shared")
STREAM_ERRORS = {1: "valid fell before the payload was taken", 2: "the payload changed before it was taken",
                 3: "valid depends on ready", 4: "a surplus payload is offered after the expected ones"}


@dataclass(frozen=True)
class StreamRun:
    """What ``run_streams`` saw: received fields by stream, cycle of each transfer by stream, cycles in all."""

    outputs: dict[str, Any]
    transfer_cycles: dict[str, np.ndarray]
    cycles: int


class VerilatedLibrary:
    """``component`` compiled into a shared library; any number of simulators can be made of it."""

    def __init__(self, component: wiring.Component, name: str | None = None, build_args: tuple[str, ...] = ()):
        self.name = name or type(component).__name__.lower()
        self.shapes: dict[str, Any] = {}
        self.inputs: set[str] = set()
        for path, member, _ in component.signature.flatten(component):
            port = "__".join(map(str, path))
            if Shape.cast(member.shape).width == 0:
                continue  # no such port in the Verilog
            self.shapes[port] = member.shape
            if member.flow is wiring.In:
                self.inputs.add(port)
        self.port_numbers = {port: number for number, port in enumerate(self.shapes)}
        design = emit_design(component, self.name)
        ports = self._port_list(design)
        folder = build_once("library", [design.verilog, *design.shared_modules, *BUILD_ARGS, *build_args, ports,
                                        SHIM.read_text(), verilator_version()],
                            lambda folder: self._build(design, ports, folder, build_args))
        self.library = _declare(ctypes.CDLL(str(folder / "libtop.so")))

    def simulator(self) -> "Simulator":
        """A fresh simulation, reset, with every input 0."""
        return Simulator(self)

    def _port_list(self, design: EmittedDesign) -> str:
        """Text of ports.h: where Vtop keeps each port."""
        members = [f"top.{port.replace('__', '___05F')}" for port in self.shapes]  # Verilator's spelling of __
        entries = "".join(f"        {{reinterpret_cast<uint8_t*>(&{m}), sizeof({m})}},\n" for m in members)
        return (f"#define HAS_CLOCK {int(design.clocked)}\n"
                f"static std::vector<Port> list_ports(Vtop& top) {{\n    return {{\n{entries}    }};\n}}\n")

    def _build(self, design: EmittedDesign, ports: str, folder: Path, build_args: tuple[str, ...]) -> None:
        (folder / "ports.h").write_text(ports)
        command = [verilator_command(), *BUILD_ARGS, *build_args, "-CFLAGS", f"-I{folder}", "--top-module", self.name,
                   "-Mdir", str(folder), *map(str, write_sources(design, folder)), str(SHIM)]
        done = subprocess.run(command, env=tool_environment(), text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        (folder / "build.log").write_text(done.stdout)
        if done.returncode:
            raise RuntimeError(f"building {self.name} failed; the end of {folder}/build.log:\n{done.stdout[-4000:]}")


class Simulator:
    """One simulation of a ``VerilatedLibrary``."""

    def __init__(self, library: VerilatedLibrary):
        self.of = library
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

    def set(self, port: str, fields: Any) -> None:
        """Drive an input: an integer, a list for an array, a dict for a struct. Seen by the next step or get."""
        if port not in self.of.inputs:
            raise ValueError(f"{port} is not an input")
        row = pack(self.of.shapes[port], _with_axis(fields))[0]
        self._ports[port][:len(row)] = row

    def get(self, port: str) -> Any:
        """Value of a port, settled: an int for a plain shape, else fields."""
        self._c.simulation_settle(self._simulation)
        shape = self.of.shapes[port]
        return _without_axis(unpack(shape, self._ports[port][None, :width_bytes(shape)]))

    def step(self, cycles: int = 1) -> None:
        """Run ``cycles`` clock cycles."""
        self._c.simulation_step(self._simulation, cycles)

    def reset(self) -> None:
        """Drive every input 0 and reset for two cycles."""
        for port in self.of.inputs:
            self._ports[port][:] = 0
        self._c.simulation_reset(self._simulation)

    @property
    def cycle(self) -> int:
        """Clock cycles since reset."""
        return self._c.simulation_cycles(self._simulation)

    def run_vectors(self, inputs: Mapping[str, Any], outputs: list[str]) -> dict[str, Any]:
        """Set the inputs' n-th entries in cycle n and read the outputs just before its clock edge."""
        batches = {port: pack(self.of.shapes[port], fields) for port, fields in inputs.items()}
        cycles = {len(batch) for batch in batches.values()}
        if len(cycles) != 1:
            raise ValueError(f"inputs differ in length: { {port: len(b) for port, b in batches.items()} }")
        count = cycles.pop()
        results = {port: np.zeros((count, width_bytes(self.of.shapes[port])), np.uint8) for port in outputs}
        self._c.simulation_run_vectors(self._simulation, count, *self._arrays(batches), *self._arrays(results))
        return {port: unpack(self.of.shapes[port], batch) for port, batch in results.items()}

    def run_streams(self, inputs: Mapping[str, Any], outputs: Mapping[str, int], *,
                    stall: float | Mapping[str, float] = 0.0, seed: int | None = None, max_cycles: int | None = None,
                    idle_cycles: int = 0) -> StreamRun:
        """Send ``inputs`` (fields by stream) while receiving ``outputs`` (number of payloads by stream).

        Parameters
        ----------
        stall       : probability that a side stalls in a cycle, one for all streams or by stream (others 0).
        seed        : of the stalls; ``bench_seed()`` unless given.
        max_cycles  : give up then; 10,000 + 100 a transfer unless given.
        idle_cycles : cycles afterwards in which no output stream may offer anything.
        """
        seed = bench_seed() if seed is None else seed
        names = [*inputs, *outputs]
        batches = [pack(self.of.shapes[f"{n}__payload"], fields) for n, fields in inputs.items()]
        batches += [np.zeros((count, width_bytes(self.of.shapes[f"{n}__payload"])), np.uint8)
                    for n, count in outputs.items()]
        cycles = [np.zeros(len(batch), np.uint64) for batch in batches]
        jobs = (_StreamJob * len(names))()
        for number, (job, name, batch, stamps) in enumerate(zip(jobs, names, batches, cycles)):
            probability = stall.get(name, 0.0) if isinstance(stall, Mapping) else stall
            job.valid, job.ready, job.payload = (self.of.port_numbers[f"{name}__{part}"]
                                                 for part in ("valid", "ready", "payload"))
            job.is_input = int(f"{name}__payload" in self.of.inputs)
            if job.is_input != int(number < len(inputs)):
                raise ValueError(f"stream {name} is an {'input' if job.is_input else 'output'} of the component")
            job.payload_bytes = batch.shape[1]
            job.stall = min(int(probability * 2**32), 2**32 - 1)
            job.random = random.Random(f"{seed} {name}").getrandbits(63) | 1
            job.data = batch.ctypes.data
            job.cycles = stamps.ctypes.data
            job.count = len(batch)
        limit = 10_000 + 100 * sum(map(len, batches)) if max_cycles is None else max_cycles
        ran = self._c.simulation_run_streams(self._simulation, len(names), jobs, limit, idle_cycles)
        if ran == 2**64 - 1:
            causes = [f"{n}: {STREAM_ERRORS[j.error]}" for n, j in zip(names, jobs) if j.error]
            came = ", ".join(f"{n} {j.done} of {j.count}" for n, j in zip(names, jobs))
            raise AssertionError(f"{self.of.name}: {'; '.join(causes) or f'not done after {limit} cycles'} "
                                 f"(stall {stall}, seed {seed}; {came})")
        transfer_cycles = {name: stamps.astype(np.int64) for name, stamps in zip(names, cycles)}
        received = {name: unpack(self.of.shapes[f"{name}__payload"], batch)
                    for name, batch in zip(names, batches) if name in outputs}
        return StreamRun(received, transfer_cycles, ran)

    def _arrays(self, batches: Mapping[str, np.ndarray]) -> tuple:
        count = len(batches)
        return (count, (ctypes.c_uint32 * count)(*(self.of.port_numbers[port] for port in batches)),
                (ctypes.c_void_p * count)(*(batch.ctypes.data for batch in batches.values())),
                (ctypes.c_uint32 * count)(*(batch.shape[1] for batch in batches.values())))


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


def _with_axis(fields: Any) -> Any:
    if isinstance(fields, dict):
        return {key: _with_axis(value) for key, value in fields.items()}
    if isinstance(fields, int):
        fields = np.array([fields], object)
        return fields
    return np.asarray(fields)[None]


def _without_axis(fields: Any) -> Any:
    if isinstance(fields, dict):
        return {key: _without_axis(value) for key, value in fields.items()}
    return int(fields[0]) if fields.ndim == 1 else fields[0]
