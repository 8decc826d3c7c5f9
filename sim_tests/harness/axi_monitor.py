"""Watches an AXI4 master in a bench and fails the test when it breaks the protocol or its own limits.

    monitor = AxiMonitor(dut, "bus", params)                  # ports bus__araddr … or, with "m_axi_0", m_axi_0_araddr …
    …
    assert monitor.reads_open == 0 and monitor.writes_open == 0

Checked every cycle: an offered address or word stays, unchanged, until taken; bursts are INCR of the full width, at
most ``burst_beats`` long, aligned, and inside one 4096-byte page; written words follow their address, ``wlast`` is
where the length says; the memory answers only what was asked.
"""

from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from rtl.contract.design_params import DesignParams
from rtl.memory_ports.axi4 import BURST_INCR, PAGE_BYTES

CHANNELS = {
    "ar": ("arid", "araddr", "arlen", "arsize", "arburst"),
    "aw": ("awid", "awaddr", "awlen", "awsize", "awburst"),
    "w": ("wdata", "wstrb", "wlast"),
}


class AxiMonitor:
    """Starts watching at once; ``clk`` of ``dut`` is the clock.

    Attributes
    ----------
    reads, writes           : (address, beats) of every accepted burst.
    reads_open, writes_open : bursts in flight.
    words_owed              : read words asked for and not yet come.
    words_read, words_written
    read_errors, write_errors : answers that were SLVERR or DECERR.
    """

    def __init__(self, dut, bus: str, params: DesignParams):
        self.bus, self.params, self.clk = bus, params, dut.clk
        separator = "__" if hasattr(dut, f"{bus}__araddr") or hasattr(dut, f"{bus}__awaddr") else "_"
        self.signals = {}
        for name in ("arready", "arvalid", "rvalid", "rready", "rlast", "rresp", "awready", "awvalid", "wvalid",
                     "wready", "wstrb", "bvalid", "bready", "bresp", *sum(CHANNELS.values(), ())):
            if hasattr(dut, f"{bus}{separator}{name}"):
                self.signals[name] = getattr(dut, f"{bus}{separator}{name}")
        if not self.signals:
            raise ValueError(f"no AXI bus {bus} in the design")
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.words_read = self.words_written = self.read_errors = self.write_errors = 0
        self._reads: deque[int] = deque()
        self._writes: deque[int] = deque()
        self._responses = 0
        self._offered: dict[str, tuple[int, ...]] = {}
        cocotb.start_soon(self._run())

    @property
    def reads_open(self) -> int:
        return len(self._reads)

    @property
    def writes_open(self) -> int:
        return len(self._writes) + self._responses

    @property
    def words_owed(self) -> int:
        return sum(self._reads)

    def _is_high(self, name: str) -> bool:
        return self.signals[name].value == 1

    async def _run(self) -> None:
        edge = RisingEdge(self.clk)
        has_reads, has_writes = "arvalid" in self.signals, "awvalid" in self.signals
        while True:
            await edge
            if has_reads:
                self._read_data()
                self._address("ar", self.reads, self._reads)
            if has_writes:
                self._response()
                self._write_data()
                self._address("aw", self.writes, self._writes)

    def _taken(self, channel: str) -> tuple[int, ...] | None:
        """Payload of a transfer in this cycle; checks that what was offered stays."""
        before = self._offered.pop(channel, None)
        if not self._is_high(f"{channel}valid"):
            assert before is None, f"{self.bus}: {channel}valid fell before it was taken"
            return None
        payload = tuple(int(self.signals[name].value) for name in CHANNELS[channel])
        assert before in (None, payload), f"{self.bus}: {channel} changed from {before} to {payload} while it waited"
        if self._is_high(f"{channel}ready"):
            return payload
        self._offered[channel] = payload
        return None

    def _address(self, channel: str, log: list[tuple[int, int]], open_bursts: deque[int]) -> None:
        taken = self._taken(channel)
        if taken is None:
            return
        identity, address, length, size, burst = taken
        beats, port_bytes = length + 1, self.params.port_bytes
        what = f"{self.bus}: {channel} burst of {beats} at {address:#x}"
        assert identity == 0 and burst == BURST_INCR and 1 << size == port_bytes, f"{what}: {identity, burst, size}"
        assert address % port_bytes == 0, f"{what} is not aligned"
        assert beats <= self.params.burst_beats, f"{what} is too long"
        assert address % PAGE_BYTES + beats * port_bytes <= PAGE_BYTES, f"{what} crosses a page"
        log.append((address, beats))
        open_bursts.append(beats)

    def _read_data(self) -> None:
        if not (self._is_high("rvalid") and self._is_high("rready")):
            return
        assert self._reads, f"{self.bus}: data that nobody asked for"
        self.words_read += 1
        self.read_errors += int(self.signals["rresp"].value) >> 1
        self._reads[0] -= 1
        assert self._is_high("rlast") == (self._reads[0] == 0), f"{self.bus}: rlast in the wrong place"
        if not self._reads[0]:
            self._reads.popleft()

    def _write_data(self) -> None:
        taken = self._taken("w")
        if taken is None:
            return
        assert self._writes, f"{self.bus}: a word is written before its address"
        self.words_written += 1
        self._writes[0] -= 1
        assert bool(taken[2]) == (self._writes[0] == 0), f"{self.bus}: wlast in the wrong place"
        if not self._writes[0]:
            self._writes.popleft()
            self._responses += 1

    def _response(self) -> None:
        if self._is_high("bvalid") and self._is_high("bready"):
            assert self._responses, f"{self.bus}: a response that nobody waits for"
            self.write_errors += int(self.signals["bresp"].value) >> 1
            self._responses -= 1
