"""The interface that every device has."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rtl.contract.design_params import DesignParams


class Device(Protocol):
    """Registers, memory, and waiting for the machine.

    ``memory_base`` … ``memory_base + memory_bytes − 1`` are byte addresses that the accelerator's ports and the host
    see alike. Whatever goes wrong is a :class:`host.errors.HostError`.
    """

    params: DesignParams
    memory_base: int
    memory_bytes: int
    clock_hz: float
    port_offsets: tuple[int, ...]
    """Where each port's sub-stream starts, in bytes modulo 64 KiB, so that the memory controller serves them evenly."""

    def read_register(self, address: int) -> int: ...

    def write_register(self, address: int, value: int) -> None: ...

    def read_memory(self, address: int, count: int) -> np.ndarray:
        """uint8 copy."""
        ...

    def write_memory(self, address: int, data: np.ndarray | bytes) -> None: ...

    def wait(self) -> None:
        """Return when STATUS may have left BUSY; a simulation advances here. May return early."""
        ...

    def close(self) -> None: ...
