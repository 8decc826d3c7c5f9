"""The cocotb side of ``sim_tests.harness.cocotb_simulation``: one test that does what it is told until told no more."""

import os
from contextlib import suppress
from multiprocessing.connection import Client
from typing import Any

import cocotb
from cocotb.triggers import Event, SimTimeoutError, Timer, with_timeout
from cocotb.utils import get_sim_time

from sim_tests.harness.streams import ADDRESS_VARIABLE, CLOCK_NS, cycle, receive, send, stalls


@cocotb.test()
async def serve(dut) -> None:
    bench = Bench(dut)
    with Client(os.environ[ADDRESS_VARIABLE]) as connection:
        while True:
            try:
                request, *arguments = connection.recv()
            except EOFError:
                return
            connection.send(await getattr(bench, request)(*arguments))


class Bench:
    """Moves one design. Between requests time stands still, the clock low."""

    def __init__(self, dut) -> None:
        self.dut = dut
        self.clocked = hasattr(dut, "clk")
        self.inputs: list[str] = []
        self.cycles = 0

    async def open(self, inputs: list[str]) -> None:
        self.inputs = inputs
        if self.clocked:
            self.dut.clk.value = 0
        await self.reset()

    async def reset(self) -> None:
        for port in self.inputs:
            getattr(self.dut, port).value = 0
        if self.clocked:
            self.dut.rst.value = 1
            await self.step(2)
            self.dut.rst.value = 0
        await Timer(CLOCK_NS, "ns")
        self.cycles = 0

    async def step(self, cycles: int) -> None:
        for _ in range(cycles):
            await self._cycle()

    async def cycle(self) -> int:
        return self.cycles

    async def write(self, port: str, value: int) -> None:
        getattr(self.dut, port).value = value

    async def read(self, port: str) -> int:
        await Timer(CLOCK_NS, "ns")  # settles; the clock doesn't move
        return int(getattr(self.dut, port).value)

    async def run_vectors(self, count: int, inputs: dict[str, list[int]], outputs: list[str]) -> dict[str, list[int]]:
        results: dict[str, list[int]] = {port: [] for port in outputs}
        for number in range(count):
            for port, values in inputs.items():
                getattr(self.dut, port).value = values[number]
            await Timer(CLOCK_NS, "ns")
            for port in outputs:
                results[port].append(int(getattr(self.dut, port).value))
            await self._cycle()
        return results

    async def run_streams(self, work: list[tuple[str, bool, Any, float, int]], max_cycles: int,
                          idle_cycles: int) -> tuple[int | None, list[tuple[list[int], list[int], str]]]:
        """Cycles to the last transfer (None: failed), and payloads, transfer cycles and error of each stream."""
        first = cycle() + 1  # number of the first clock edge to come
        streams = [_Stream(self.dut, *entry) for entry in work]
        over = Event()
        tasks = [cocotb.start_soon(stream.run(streams, over)) for stream in streams]
        tasks.append(cocotb.start_soon(self._clock()))
        if streams:
            with suppress(SimTimeoutError):
                await with_timeout(over.wait(), max(max_cycles, 1) * CLOCK_NS, "ns")
        for task in tasks:
            task.cancel()
        await Timer(1, "step")  # a failed check may have left us where no pin can be set
        self.dut.clk.value = 0
        await Timer(CLOCK_NS * 1000 - get_sim_time("step") % (CLOCK_NS * 1000), "step")
        cycles = max((stream.stamps[-1] - first + 1 for stream in streams if stream.stamps), default=0)
        self.cycles += cycles
        failed = not all(stream.done and not stream.error for stream in streams)
        if not failed:
            failed = await self._surplus(streams, idle_cycles)
        results = [(stream.taken, [stamp - first for stamp in stream.stamps], stream.error) for stream in streams]
        return (None if failed else cycles), results

    async def _surplus(self, streams: list["_Stream"], idle_cycles: int) -> bool:
        """Whether any output offers more within ``idle_cycles``."""
        for _ in range(idle_cycles):
            for stream in streams:
                if not stream.is_input and getattr(self.dut, f"{stream.name}__valid").value == 1:
                    stream.error = "a surplus payload is offered after the expected ones"
                    return True
            await self._cycle()
        return False

    async def _cycle(self) -> None:
        """Settle, then a clock edge; both edges lie on multiples of the period, as ``streams.cycle`` counts them."""
        for level in (1, 0):
            await Timer(CLOCK_NS, "ns")
            if self.clocked:
                self.dut.clk.value = level
        self.cycles += 1

    async def _clock(self) -> None:
        while True:
            await Timer(CLOCK_NS // 2, "ns")
            self.dut.clk.value = 0
            await Timer(CLOCK_NS // 2, "ns")
            self.dut.clk.value = 1


class _Stream:
    """One stream's part in a run."""

    def __init__(self, dut, name: str, is_input: bool, items: Any, stall: float, seed: int) -> None:
        self.name, self.is_input = name, is_input
        self.stamps: list[int] = []
        self.taken: list[int] = []
        self.done, self.error = False, ""
        pattern = stalls(stall, seed) if stall else None
        self._work = (send(dut, name, items, pattern, self.stamps) if is_input
                      else receive(dut, name, items, pattern, self.stamps, self.taken))

    async def run(self, streams: list["_Stream"], over: Event) -> None:
        """Serve the stream; the run is over when all are done or one has failed."""
        try:
            await self._work
            self.done = True
        except AssertionError as error:
            self.error = str(error).splitlines()[0].removeprefix(f"{self.name}: ")
        if self.error or all(stream.done for stream in streams):
            over.set()
