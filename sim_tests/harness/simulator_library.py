"""The simulator's library from Python: a thin layer over its C interface (see the package's docstring)."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from host.devices.verilator import load_library


class SimulatorLibrary:
    """One simulation of the design that ``path`` was built from."""

    def __init__(self, path: Path, memory_bytes: int):
        self._c = c = load_library(path)
        created = c.tellme_sim_create(memory_bytes)
        if not created:
            raise MemoryError(f"no {memory_bytes} bytes for the simulated memory")
        self._handle = ctypes.c_void_p(created)
        self.memory = np.ctypeslib.as_array(c.tellme_sim_memory(self._handle), (memory_bytes,))

    def close(self) -> None:
        """Free the simulation; ``memory`` must not be touched any more."""
        if self._handle:
            del self.memory
            self._c.tellme_sim_destroy(self._handle)
            self._handle = ctypes.c_void_p()

    def set(self, name: str, value: int, port: int = -1) -> None:
        """A setting of a port, −1: of all. Raises ``ValueError`` for what the library refuses."""
        if self._c.tellme_sim_set(self._handle, port, name.encode(), value):
            raise ValueError(f"the simulator refuses {name} = {value} on port {port}")

    def get(self, name: str, port: int = -1) -> int:
        """A setting or counter of a port, −1: a counter's sum over all."""
        value = self._c.tellme_sim_get(self._handle, port, name.encode())
        if value == 2**64 - 1:
            raise ValueError(f"the simulator has no {name} on port {port}")
        return value

    def reset(self) -> None:
        self._c.tellme_sim_reset(self._handle)

    def write_register(self, address: int, value: int) -> int:
        """The AXI response, −1 for none."""
        return self._c.tellme_sim_write_register(self._handle, address, value)

    def read_register(self, address: int) -> int:
        """Raises ``RuntimeError`` when the answer isn't OKAY."""
        value = ctypes.c_uint32()
        response = self._c.tellme_sim_read_register(self._handle, address, ctypes.byref(value))
        if response:
            raise RuntimeError(f"reading register 0x{address:x}: response {response}")
        return value.value

    def run(self, cycles: int, until_interrupt: bool = False) -> int:
        return self._c.tellme_sim_run(self._handle, cycles, int(until_interrupt))

    @property
    def interrupt(self) -> bool:
        return bool(self._c.tellme_sim_interrupt(self._handle))

    @property
    def cycles(self) -> int:
        return self._c.tellme_sim_cycles(self._handle)

    @property
    def violation(self) -> str:
        return self._c.tellme_sim_violation(self._handle).decode()
