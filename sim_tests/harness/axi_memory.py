"""cocotbext-axi memories behind the ports of a bench, with pauses on every channel and addresses that answer SLVERR."""

from collections.abc import Container

import cocotb
from cocotb.queue import Queue
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiReadBus, AxiWriteBus
from cocotbext.axi.axi_ram import AxiRamRead, AxiRamWrite
from cocotbext.axi.memory import Memory

from sim_tests.harness.streams import cycle, stalls


class PortMemory(Memory):
    """Memory of one port.

    Parameters
    ----------
    bus   : what stands before ``_araddr`` …: ``"bus_"`` for a member ``bus``, ``"m_axi_0"`` for flat names.
    size  : bytes; addresses wrap.
    bad   : byte addresses (of whole port words) that answer SLVERR.
    pause : probability that a channel pauses in a cycle, each by its own seed.
    latency_cycles : from a read's address to its first word at least; bursts in flight overlap.
    """

    def __init__(self, dut, bus: str, size: int = 1 << 16, *, bad: Container[int] = (), pause: float = 0.0,
                 seed: int = 0, latency_cycles: int = 0):
        super().__init__(size)
        self.channels = []
        if hasattr(dut, f"{bus}_araddr"):
            self.reads = _Read(AxiReadBus.from_prefix(dut, bus), dut.clk, size=size, mem=self.mem)
            self.reads.bad = bad
            if latency_cycles:
                self.reads.ar_channel = _Delay(self.reads.ar_channel, dut.clk, latency_cycles)
            self.channels += [getattr(self.reads.ar_channel, "sink", self.reads.ar_channel), self.reads.r_channel]
        if hasattr(dut, f"{bus}_awaddr"):
            self.writes = _Write(AxiWriteBus.from_prefix(dut, bus), dut.clk, size=size, mem=self.mem)
            self.writes.bad = bad
            self.channels += [self.writes.aw_channel, self.writes.w_channel, self.writes.b_channel]
        if not self.channels:
            raise ValueError(f"no AXI bus {bus} in the design")
        self.set_pause(pause, seed)

    def set_pause(self, probability: float, seed: int) -> None:
        for number, channel in enumerate(self.channels):
            channel.set_pause_generator(stalls(probability, 97 * seed + number) if probability else None)
            channel.pause = False


class _Read(AxiRamRead):
    bad: Container[int] = ()

    async def _read(self, address, length):
        if address in self.bad:
            raise OSError(f"SLVERR at {address:#x}")
        return await super()._read(address, length)


class _Write(AxiRamWrite):
    bad: Container[int] = ()

    async def _write(self, address, data):
        if address in self.bad:
            raise OSError(f"SLVERR at {address:#x}")
        await super()._write(address, data)


class _Delay:
    """Addresses of ``sink``, each ``cycles`` after it was taken."""

    def __init__(self, sink, clk, cycles: int):
        self.sink, self.clk, self.cycles = sink, clk, cycles
        self.waiting: Queue = Queue()
        sink.queue_occupancy_limit = -1
        cocotb.start_soon(self._collect())

    async def _collect(self):
        while True:
            address = await self.sink.recv()
            self.waiting.put_nowait((cycle() + self.cycles, address))

    async def recv(self):
        due, address = await self.waiting.get()
        while cycle() < due:
            await RisingEdge(self.clk)
        return address
