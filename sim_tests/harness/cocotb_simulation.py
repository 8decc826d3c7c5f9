"""A component under cocotb, held like any other simulation: the same bench text checks it by both.

The simulation runs in its own process, as cocotb wants it; there ``sim_tests.harness.cocotb_server`` moves pins and
streams with the drivers of ``sim_tests.harness.streams``, as it is told through a socket. Time passes only while a
``step`` or a run is under way. ``WAVES=1`` leaves ``dump.vcd`` in the folder that a failure names.
"""

import itertools
import os
import threading
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import wiring

from hls_py.emit.verilator import build_root
from sim_tests.harness.bench import build_simulation, failures_of, run_simulation
from sim_tests.harness.payload import from_ints, to_ints
from sim_tests.harness.ports import Ports
from sim_tests.harness.simulation import Simulator, StreamJob
from sim_tests.harness.streams import ADDRESS_VARIABLE

_numbers = itertools.count()  # of this process's simulations


class CocotbSimulation(Ports):
    """``component`` compiled for cocotb, kept in build/sim_cache; any number of simulators of it."""

    def __init__(self, component: wiring.Component, name: str | None = None):
        super().__init__(component, name)
        self.folder = build_simulation(component, self.name)

    def simulator(self) -> Simulator:
        """A fresh simulation, reset, with every input 0."""
        return _CocotbSimulator(self)


class _CocotbSimulator(Simulator):
    of: CocotbSimulation

    def __init__(self, simulation: CocotbSimulation):
        super().__init__(simulation)
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        self._folder = build_root() / "benches" / f"{simulation.name}-{worker}-{next(_numbers)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        with Listener(family="AF_UNIX") as listener:
            self._process = threading.Thread(target=self._simulate,
                                             args=(simulation, self._folder, listener.address), daemon=True)
            self._process.start()
            self._connection: Connection | None = listener.accept()
        self._ask("open", sorted(simulation.inputs))

    def __del__(self):
        connection, self._connection = getattr(self, "_connection", None), None
        if connection is not None:
            connection.close()  # which ends the simulation
            self._process.join(timeout=10)

    def step(self, cycles: int = 1) -> None:
        self._ask("step", cycles)

    def reset(self) -> None:
        self._ask("reset")

    @property
    def cycle(self) -> int:
        return self._ask("cycle")

    def _write(self, port: str, row: np.ndarray) -> None:
        self._ask("write", port, to_ints(row[None])[0])

    def _read(self, port: str) -> np.ndarray:
        return from_ints(self.of.shapes[port], [self._ask("read", port)])[0]

    def _run_vectors(self, count: int, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        vectors = {port: to_ints(batch) for port, batch in inputs.items()}
        for port, values in self._ask("run_vectors", count, vectors, list(outputs)).items():
            outputs[port][:] = from_ints(self.of.shapes[port], values)

    def _run_streams(self, jobs: list[StreamJob], max_cycles: int, idle_cycles: int) -> int | None:
        work = [(job.name, job.is_input, to_ints(job.batch) if job.is_input else len(job.batch), job.stall, job.seed)
                for job in jobs]
        cycles, results = self._ask("run_streams", work, max_cycles, idle_cycles)
        for job, (payloads, transfer_cycles, error) in zip(jobs, results):
            job.error = error
            job.done = len(transfer_cycles)
            job.cycles[:job.done] = transfer_cycles
            if not job.is_input and payloads:
                job.batch[:job.done] = from_ints(self.of.shapes[f"{job.name}__payload"], payloads)
        return cycles

    def _ask(self, *request: Any) -> Any:
        assert self._connection is not None
        self._connection.send(request)
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join(timeout=10)
            raise AssertionError(f"cocotb gave up on {self.of.name} at {request[0]}, see {self._folder}:\n"
                                 + "\n".join(failures_of(self._folder / "results.xml"))) from None

    @staticmethod
    def _simulate(simulation: CocotbSimulation, folder: Path, address: str) -> None:
        """The simulation's life, in a thread of its own."""
        with suppress(SystemExit):  # what failed is in results.xml, and the connection is closed
            run_simulation(simulation.name, simulation.folder, folder, "sim_tests.harness.cocotb_server",
                           {ADDRESS_VARIABLE: address})
        with suppress(OSError):  # a simulation that died before it called would leave the listener waiting
            Client(address).close()
