"""What a bench holds a component by, whichever simulation runs it: ports by name, streams by the thousand.

    sim = VerilatedLibrary(Argmax(rows=4)).simulator()       # sim_tests.harness.fast: a loop in C++, for volume
    sim = CocotbSimulation(Argmax(rows=4)).simulator()       # sim_tests.harness.cocotb_simulation: cocotb's drivers

    sim.set("scale", 3)                                      # ports that aren't streams
    run = sim.run_streams({"logits": {"bits": bits, "last": last}}, {"token": 1000}, stall=0.3)
    run.outputs["token"]["index"]                            # array [1000]
    run.cycles                                               # cycles from the first to the last transfer, inclusive
    run.transfer_cycles["token"]                             # cycle of each transfer, counted from the call

    sim.run_vectors({"a": a, "b": b}, ["product"])           # one vector a cycle, outputs read before the clock edge
    sim.get("count"), sim.step(10), sim.reset()

Field layouts are those of ``sim_tests.harness.payload``. While streams run, their contract is checked: an offered
payload stays and doesn't change. ``idle_cycles`` adds a look for surplus outputs. Every failure is an AssertionError
that names the seed and how far each stream came.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim_tests.harness.bench import bench_seed
from sim_tests.harness.payload import pack, unpack, width_bytes
from sim_tests.harness.ports import Ports


@dataclass(frozen=True)
class StreamRun:
    """What ``run_streams`` saw: received fields by stream, cycle of each transfer by stream, cycles in all."""

    outputs: dict[str, Any]
    transfer_cycles: dict[str, np.ndarray]
    cycles: int


@dataclass
class StreamJob:
    """One stream's part in ``run_streams``."""

    name: str
    is_input: bool
    batch: np.ndarray
    """uint8 [count, bytes]: payloads to send, or room for the received ones."""
    cycles: np.ndarray
    """uint64 [count]: gets the cycle of each transfer."""
    stall: float
    seed: int
    """Of this stream's stalls; 63 bits, never 0."""
    done: int = 0
    error: str = ""


class Simulator(ABC):
    """One simulation of a component, out of reset, every input 0."""

    def __init__(self, ports: Ports):
        self.of = ports

    def set(self, port: str, fields: Any) -> None:
        """Drive an input: an integer, a list for an array, a dict for a struct. Seen by the next step or get."""
        if port not in self.of.inputs:
            raise ValueError(f"{port} is not an input")
        self._write(port, pack(self.of.shapes[port], _with_axis(fields))[0])

    def get(self, port: str) -> Any:
        """Value of a port, settled: an int for a plain shape, else fields."""
        shape = self.of.shapes[port]
        return _without_axis(unpack(shape, self._read(port)[None, :width_bytes(shape)]))

    def run_vectors(self, inputs: Mapping[str, Any], outputs: list[str]) -> dict[str, Any]:
        """Set the inputs' n-th entries in cycle n and read the outputs just before its clock edge."""
        batches = {port: pack(self.of.shapes[port], fields) for port, fields in inputs.items()}
        cycles = {len(batch) for batch in batches.values()}
        if len(cycles) != 1:
            raise ValueError(f"inputs differ in length: { {port: len(b) for port, b in batches.items()} }")
        count = cycles.pop()
        results = {port: np.zeros((count, width_bytes(self.of.shapes[port])), np.uint8) for port in outputs}
        self._run_vectors(count, batches, results)
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
        jobs = []
        for name, fields in [*inputs.items(), *outputs.items()]:
            shape, is_input = self.of.shapes[f"{name}__payload"], f"{name}__payload" in self.of.inputs
            if is_input != (name in inputs):
                raise ValueError(f"stream {name} is an {'input' if is_input else 'output'} of the component")
            batch = pack(shape, fields) if is_input else np.zeros((fields, width_bytes(shape)), np.uint8)
            jobs.append(StreamJob(name, is_input, batch, np.zeros(len(batch), np.uint64),
                                  stall.get(name, 0.0) if isinstance(stall, Mapping) else stall,
                                  random.Random(f"{seed} {name}").getrandbits(63) | 1))
        limit = 10_000 + 100 * sum(len(job.batch) for job in jobs) if max_cycles is None else max_cycles
        cycles = self._run_streams(jobs, limit, idle_cycles)
        if cycles is None:
            causes = [f"{job.name}: {job.error}" for job in jobs if job.error]
            came = ", ".join(f"{job.name} {job.done} of {len(job.batch)}" for job in jobs)
            raise AssertionError(f"{self.of.name}: {'; '.join(causes) or f'not done after {limit} cycles'} "
                                 f"(stall {stall}, seed {seed}; {came})")
        return StreamRun({job.name: unpack(self.of.shapes[f"{job.name}__payload"], job.batch)
                          for job in jobs if not job.is_input},
                         {job.name: job.cycles.astype(np.int64) for job in jobs}, cycles)

    @property
    @abstractmethod
    def cycle(self) -> int:
        """Clock cycles since reset."""

    @abstractmethod
    def step(self, cycles: int = 1) -> None:
        """Run ``cycles`` clock cycles."""

    @abstractmethod
    def reset(self) -> None:
        """Drive every input 0 and reset for two cycles."""

    @abstractmethod
    def _write(self, port: str, row: np.ndarray) -> None: ...

    @abstractmethod
    def _read(self, port: str) -> np.ndarray: ...

    @abstractmethod
    def _run_vectors(self, count: int, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None: ...

    @abstractmethod
    def _run_streams(self, jobs: list[StreamJob], max_cycles: int, idle_cycles: int) -> int | None:
        """Fill in the jobs; cycles to the last transfer, None for a failure (a job's error, else out of cycles)."""


def _with_axis(fields: Any) -> Any:
    if isinstance(fields, dict):
        return {key: _with_axis(value) for key, value in fields.items()}
    if isinstance(fields, int):
        return np.array([fields], object)
    return np.asarray(fields)[None]


def _without_axis(fields: Any) -> Any:
    if isinstance(fields, dict):
        return {key: _without_axis(value) for key, value in fields.items()}
    return int(fields[0]) if fields.ndim == 1 else fields[0]
