"""The generated RTL under Verilator, with a C++ model of the board's memory, as a device."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from pathlib import Path

import numpy as np

from host.board import Board
from host.errors import HostError
from rtl.contract import register_map
from rtl.contract.register_map import Status

ABI = 2


class PortBit(IntEnum):
    """Bits of a port's byte in a trace; at most one of the first four is set, none where nothing was asked for."""

    READ_BEAT = 0
    READ_HELD = 1
    """The design doesn't take the beat that is offered."""
    READ_PACED = 2
    """The memory's rate, a refresh or a write holds the next beat back."""
    READ_LATENCY = 3
    WRITE_BEAT = 4
    WRITE_PACED = 5
    ADDRESS_HELD = 6
    """As many bursts are open as the memory accepts."""
    REFRESH = 7


SLICE_CYCLES = 20_000
"""Cycles between two looks at Ctrl-C: about a second."""


class VerilatorDevice:
    """Loads ``libtellme_sim.so``; time passes in ``wait`` and in register accesses.

    Raises :class:`HostError` when the library can't be loaded or belongs to another interface.
    """

    memory_base = 0

    def __init__(self, library: Path, board: Board, memory_bytes: int | None = None):
        self.board, self.params = board, board.params
        self.clock_hz, self.port_offsets = board.clock_hz, board.port_offsets
        self.memory_bytes = memory_bytes or board.memory_bytes
        self._c = load_library(library)
        self._sim: ctypes.c_void_p | None = ctypes.c_void_p(self._c.tellme_sim_create(self.memory_bytes))
        if not self._sim.value:
            raise HostError(f"no {self.memory_bytes >> 20} MiB of memory for the simulated board; use a smaller one")
        self._trace = np.empty((0, 2), np.uint64)
        self._memory = np.ctypeslib.as_array(self._c.tellme_sim_memory(self._sim), (self.memory_bytes,))
        for port, settings in enumerate(board.ports):
            for name, value in settings.items():
                self.set(port, name, value)

    def set(self, port: int, name: str, value: int) -> None:
        """A setting of the memory model (see the simulator's list); port −1: every port."""
        if self._c.tellme_sim_set(self._sim, port, name.encode(), value):
            raise HostError(f"the simulator doesn't take {name} = {value} for port {port}")

    def get(self, port: int, name: str) -> int:
        """A setting or counter of the memory model; port −1: sum over ports."""
        return self._c.tellme_sim_get(self._sim, port, name.encode())

    @property
    def cycles(self) -> int:
        """Clock cycles since the simulation began."""
        return self._c.tellme_sim_cycles(self._sim)

    @property
    def violation(self) -> str:
        """The first AXI rule that the design broke, or an empty text."""
        return self._c.tellme_sim_violation(self._sim).decode()

    def read_register(self, address: int) -> int:
        value = ctypes.c_uint32()
        self._answered(self._c.tellme_sim_read_register(self._sim, address, ctypes.byref(value)), address)
        return value.value

    def write_register(self, address: int, value: int) -> None:
        self._answered(self._c.tellme_sim_write_register(self._sim, address, value), address)

    def _answered(self, response: int, address: int) -> None:
        if response:
            what = "doesn't answer" if response < 0 else f"answers with error {response}"
            raise HostError(f"register {address:#05x} {what}; the design's register bus is broken")

    def read_memory(self, address: int, count: int) -> np.ndarray:
        self._inside(address, count)
        return self._memory[address:address + count].copy()

    def write_memory(self, address: int, data: np.ndarray | bytes) -> None:
        raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data.reshape(-1).view(np.uint8)
        self._inside(address, len(raw))
        self._memory[address:address + len(raw)] = raw

    def _inside(self, address: int, count: int) -> None:
        if address < 0 or address + count > self.memory_bytes:
            raise HostError(f"address {address:#x} + {count} lies outside the memory of {self.memory_bytes} bytes")

    def wait(self) -> None:
        """Run until the interrupt, or for a slice of cycles where it stays low.

        Raises :class:`HostError` when the design has broken an AXI rule by then.
        """
        self._c.tellme_sim_run(self._sim, SLICE_CYCLES, 1)
        if self.violation:
            raise HostError(f"the design broke an AXI rule, please report it: {self.violation}")
        if not self._c.tellme_sim_interrupt(self._sim):
            return
        status = Status(self.read_register(register_map.address("STATUS")))
        if status & Status.BUSY and not status & Status.ERROR:
            # The interrupt of an earlier pass; without this it would end every wait at once.
            pending = self.read_register(register_map.address("INTERRUPT_STATUS"))
            self.write_register(register_map.address("INTERRUPT_STATUS"), pending)

    def begin_trace(self, cycles: int) -> None:
        """Record what units and ports do in the next ``cycles`` cycles, for ``end_trace``."""
        self._trace = np.empty((cycles, 2), np.uint64)
        self._c.tellme_sim_trace(self._sim, self._trace.ctypes.data_as(ctypes.POINTER(ctypes.c_uint64)), cycles)

    def end_trace(self) -> tuple[np.ndarray, np.ndarray]:
        """(activity uint64 [cycles], ports uint8 [cycles, ports]) since ``begin_trace``.

        Bits of activity: rtl.contract.activity; of a port's byte: PortBit.
        """
        words = self._trace[:self._c.tellme_sim_traced(self._sim)]
        self._c.tellme_sim_trace(self._sim, None, 0)
        self._trace = np.empty((0, 2), np.uint64)
        ports = np.ascontiguousarray(words[:, 1]).astype("<u8").view(np.uint8).reshape(-1, 8)
        return words[:, 0].copy(), ports[:, :self.params.ports].copy()

    def beats_per_cycle(self, port: int) -> float:
        """What the memory gives this port on the average, refreshes included."""
        interval, refresh = self.get(port, "refresh_interval_cycles"), self.get(port, "refresh_cycles")
        moving = 1 - refresh / interval if interval else 1.0
        return self.get(port, "rate_beats_per_million_cycles") / 1e6 * moving

    def run_cycles(self, cycles: int) -> None:
        """Let time pass, whatever the accelerator does."""
        self._c.tellme_sim_run(self._sim, cycles, 0)

    def close(self) -> None:
        if self._sim is not None:
            self._memory = np.zeros(0, np.uint8)
            self._c.tellme_sim_destroy(self._sim)
            self._sim = None


def load_library(path: Path) -> ctypes.CDLL:
    """The simulator's C interface, declared; :class:`HostError` when ``path`` has none, or another one than ABI."""
    try:
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise HostError(f"{path} can't be loaded ({error}); build the simulator again") from None
    pointer, text, u32, u64, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int
    for name, result, *arguments in [
            ("abi", number), ("create", pointer, u64), ("destroy", None, pointer),
            ("memory", ctypes.POINTER(ctypes.c_uint8), pointer), ("set", number, pointer, number, text, u64),
            ("get", u64, pointer, number, text), ("reset", None, pointer),
            ("write_register", number, pointer, u32, u32),
            ("read_register", number, pointer, u32, ctypes.POINTER(u32)),
            ("run", u64, pointer, u64, number), ("interrupt", number, pointer), ("cycles", u64, pointer),
            ("violation", text, pointer), ("trace", None, pointer, ctypes.POINTER(u64), u64), ("traced", u64, pointer)]:
        try:
            function = getattr(library, f"tellme_sim_{name}")
        except AttributeError:
            raise HostError(f"{path} is no simulator of tellme; build it again") from None
        function.restype, function.argtypes = result, arguments
    if library.tellme_sim_abi() != ABI:
        raise HostError(f"{path} has interface {library.tellme_sim_abi()}, this software needs {ABI}; build it again")
    return library
