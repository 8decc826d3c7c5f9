"""The memory behind the ports: one byte-addressed space, and its striped view."""

from __future__ import annotations

import numpy as np


class Memory:
    """``size`` bytes from address 0."""

    def __init__(self, size: int):
        self.bytes = np.zeros(size, np.uint8)

    def read(self, address: int, count: int) -> np.ndarray:
        """A view; raises ``ValueError`` beyond the end."""
        if address < 0 or address + count > len(self.bytes):
            raise ValueError(f"address {address:#x} + {count} lies outside the memory of {len(self.bytes)} bytes")
        return self.bytes[address:address + count]

    def write(self, address: int, data: np.ndarray | bytes) -> None:
        raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data.reshape(-1)
        self.read(address, len(raw))[:] = raw


class Striped:
    """Beats spread over ports: bytes p·port_bytes … of beat b lie at base[p] + b·port_bytes."""

    def __init__(self, memory: Memory, bases: tuple[int, ...], port_bytes: int):
        self.memory, self.bases, self.port_bytes = memory, bases, port_bytes

    def read(self, first: int, count: int) -> np.ndarray:
        """Copy of beats [count, ports·port_bytes]."""
        width = self.port_bytes
        beats = np.empty((count, len(self.bases) * width), np.uint8)
        for p, base in enumerate(self.bases):
            part = self.memory.read(base + first * width, count * width)
            beats[:, p * width:(p + 1) * width] = part.reshape(count, width)
        return beats

    def write(self, first: int, beats: np.ndarray) -> None:
        width = self.port_bytes
        for p, base in enumerate(self.bases):
            self.memory.write(base + first * width, beats[:, p * width:(p + 1) * width].reshape(-1))
