"""The golden model as a device: registers in front of the NumPy machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from host.errors import HostError
from rtl.contract import register_map
from rtl.contract.design_params import CONTRACT_VERSION, DesignParams
from rtl.contract.register_map import Control, ErrorCause, Status

if TYPE_CHECKING:
    from hls_py.golden.machine.precision import Precision
    from hls_py.golden.machine.recorder import Recorder

DEFAULT_MEMORY_BYTES = 256 << 20


class GoldenDevice:
    """Runs a queued pass as soon as its address is written; has no clock, so counters read as zero."""

    clock_hz = 0.0
    memory_base = 0

    def __init__(self, params: DesignParams, memory_bytes: int = DEFAULT_MEMORY_BYTES,
                 port_offsets: tuple[int, ...] | None = None, precision: Precision | None = None):
        from hls_py.golden.machine.machine import Machine
        from hls_py.golden.machine.memory import Memory

        self.params, self.memory_bytes = params, memory_bytes
        self.port_offsets = port_offsets or (0,) * params.ports
        try:
            self.machine = Machine(params, Memory(memory_bytes), precision)
        except MemoryError:
            raise HostError(f"no {memory_bytes >> 20} MiB of memory for the golden model; "
                            "use a smaller board") from None
        self._weights: set[tuple[int, int]] = set()
        self._registers: dict[int, int] = {}
        self._done = 0
        self._cause, self._info = ErrorCause.NONE, 0
        self._queue: list[int] = []

    def record(self) -> Recorder:
        """From now on it is told what every block puts out."""
        from hls_py.golden.machine.recorder import Recorder

        self.machine.recorder = recorder = Recorder()
        return recorder

    # ---- registers ------------------------------------------------------------------------------------------------

    def read_register(self, address: int) -> int:
        hash_base = register_map.address("DESIGN_HASH")
        fixed = {
            register_map.address("ID"): register_map.IDENTITY,
            register_map.address("CONTRACT_VERSION"): CONTRACT_VERSION,
            register_map.address("STATUS"): int(Status.ERROR) if self._cause else 0,
            register_map.address("ERROR_CAUSE"): int(self._cause),
            register_map.address("ERROR_INFO"): self._info,
            register_map.address("PASSES_DONE"): self._done & 0xFFFFFFFF,
            **{hash_base + 4 * i: self.params.design_hash >> 32 * i & 0xFFFFFFFF for i in range(4)},
        }
        return fixed.get(address, self._registers.get(address, 0))

    def write_register(self, address: int, value: int) -> None:
        if address == register_map.address("CONTROL"):
            if value & Control.ABORT:
                self._queue.clear()
            if value & Control.ACKNOWLEDGE:
                self._cause, self._info = ErrorCause.NONE, 0
                self._run_queue()
            return
        self._registers[address] = value
        if address == register_map.address("PASS_ADDRESS_HIGH"):
            self._queue.append(value << 32 | self._registers.get(register_map.address("PASS_ADDRESS_LOW"), 0))
            self._run_queue()

    def _bases(self, name: str) -> tuple[int, ...]:
        half = [self._registers.get(register_map.address(name, i), 0) for i in range(2 * self.params.ports)]
        return tuple(half[2 * port] | half[2 * port + 1] << 32 for port in range(self.params.ports))

    def _run_queue(self) -> None:
        from hls_py.golden.machine.passes import StopError, read_pass

        self.machine.kv_bases, self.machine.table_bases = self._bases("KV_BASE"), self._bases("TABLE_BASE")
        while self._queue and not self._cause:
            address = self._queue.pop(0)
            try:
                for extent in read_pass(self.machine.memory, address, self.params).extents:
                    size = extent.beats * self.params.port_bytes
                    self._weights |= {(base, base + size) for base in extent.bases}
                self.machine.run_pass(address)
                self._done += 1
            except StopError as stop:
                self._cause, self._info = stop.cause, stop.info
            except Exception as error:
                # A program that no packing writes; hardware would stop with one of several causes, or compute rubbish.
                raise HostError(f"the golden model can't run this program ({type(error).__name__}: {error})") from error

    # ---- memory ---------------------------------------------------------------------------------------------------

    def read_memory(self, address: int, count: int) -> np.ndarray:
        try:
            return self.machine.memory.read(address, count).copy()
        except ValueError as error:
            raise HostError(str(error)) from None

    def write_memory(self, address: int, data: np.ndarray | bytes) -> None:
        raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data.reshape(-1).view(np.uint8)
        try:
            self.machine.memory.write(address, raw)
        except ValueError as error:
            raise HostError(str(error)) from None
        if any(address < end and start < address + len(raw) for start, end in self._weights):
            self._weights.clear()
            self.machine.forget_weights()

    def wait(self) -> None:
        return

    def close(self) -> None:
        return
