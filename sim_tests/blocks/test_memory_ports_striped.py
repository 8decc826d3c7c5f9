"""Striped reader and writer and the linear reader on real ports, against cocotbext-axi memories."""

import random
from functools import partial

import cocotb
import pytest
from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.triggers import ReadOnly, RisingEdge

from rtl.contract.design_params import DesignParams
from rtl.memory_ports import axi4
from rtl.memory_ports.linear_reader import LinearReader
from rtl.memory_ports.read_port import ReadPort
from rtl.memory_ports.striped_reader import StripedReader
from rtl.memory_ports.striped_writer import StripedWriter
from rtl.memory_ports.write_port import WritePort
from rtl.streams import shapes
from sim_tests.harness.axi_memory import PortMemory
from sim_tests.harness.axi_monitor import AxiMonitor
from sim_tests.harness.bench import reset, run_bench
from sim_tests.harness.streams import cycle, receive, send, stalls

simulate = partial(run_bench, max_cycles=100_000)  # a hang is to show soon
SIZE = 1 << 16


class Memories(wiring.Component):
    """One striped reader, one striped writer and one linear reader on the ports of a design."""

    def __init__(self, params: DesignParams, depth: int):
        self.params, self.depth = params, depth
        base = data.ArrayLayout(params.address_bits, params.ports)
        super().__init__({
            "read": In(stream.Signature(shapes.STRIPED_REQUEST)),
            "read_data": Out(stream.Signature(8 * params.beat_bytes)),
            "write": In(stream.Signature(shapes.STRIPED_REQUEST)),
            "write_data": In(stream.Signature(shapes.striped_write_word(params))), "write_idle": Out(1),
            "linear": In(stream.Signature(shapes.linear_request(params))), "linear_data": Out(stream.Signature(32)),
            "base": In(base), "overflow": Out(1),
            "read_bus": Out(axi4.read_signature(params)).array(params.ports),
            "write_bus": Out(axi4.write_signature(params)).array(params.ports),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = StripedReader(self.params, self.depth)
        m.submodules.writer = writer = StripedWriter(self.params)
        m.submodules.linear = linear = LinearReader(self.params, self.depth)
        connect(m, flipped(self.read), reader.request)
        connect(m, flipped(self.write), writer.request)
        connect(m, flipped(self.write_data), writer.data)
        connect(m, flipped(self.linear), linear.request)
        connect(m, reader.data, flipped(self.read_data))
        connect(m, linear.data, flipped(self.linear_data))
        m.d.comb += [reader.base.eq(self.base), writer.base.eq(self.base), self.write_idle.eq(writer.idle)]
        for p in range(self.params.ports):
            read, write = ReadPort(self.params, 1 + (p == 0)), WritePort(self.params, 1)
            m.submodules[f"read_{p}"], m.submodules[f"write_{p}"] = read, write
            connect(m, reader.port_request[p], read.request[0])
            connect(m, read.data[0], reader.port_data[p])
            if p == 0:
                connect(m, linear.port_request, read.request[1])
                connect(m, read.data[1], linear.port_data)
            connect(m, writer.port_request[p], write.request[0])
            connect(m, writer.port_data[p], write.data[0])
            connect(m, read.bus, flipped(self.read_bus[p]))
            connect(m, write.bus, flipped(self.write_bus[p]))
            m.d.comb += writer.port_idle[p].eq(write.idle[0])
            with m.If(read.overflow):
                m.d.sync += self.overflow.eq(1)
        return m


def start(dut, bench, slow_port: int = -1):
    """Memories with random contents behind every port (reads and writes share one), their monitors, the bases."""
    params = DesignParams.from_dict(bench.params)
    rng = random.Random(bench.seed)
    memories, monitors, bases = [], [], []
    for p in range(params.ports):
        pause = 0.9 if p == slow_port else bench.pause
        read = PortMemory(dut, f"read_bus__{p}_", SIZE, pause=pause, seed=bench.seed + p)
        write = PortMemory(dut, f"write_bus__{p}_", SIZE, pause=pause, seed=bench.seed + 50 + p)
        read.write(0, rng.randbytes(SIZE))
        write.mem = write.writes.mem = read.mem
        memories.append(read)
        monitors.append(AxiMonitor(dut, f"read_bus__{p}", params))
        monitors.append(AxiMonitor(dut, f"write_bus__{p}", params))
        bases.append(rng.randrange(0, 0x2000, params.port_bytes))
    dut.base.value = sum(base << params.address_bits * p for p, base in enumerate(bases))
    return params, rng, memories, monitors, bases


def beat_at(memories, bases, params: DesignParams, beat: int) -> int:
    raw = b"".join(memory.read(base + beat * params.port_bytes, params.port_bytes)
                   for memory, base in zip(memories, bases))
    return int.from_bytes(raw, "little")


@cocotb.test()
async def everything_at_once(dut):
    """Striped reads, linear reads and striped writes elsewhere run together and are all right."""
    bench = await reset(dut)
    params, rng, memories, monitors, bases = start(dut, bench, bench.slow_port)
    half = (SIZE // 2 - 0x2000) // params.port_bytes  # beats below this are read, beats from here on are written

    reads = [(rng.randrange(half - 100), rng.choice([0, 1, 2, rng.randint(1, 100)])) for _ in range(bench.requests)]
    expected = [beat_at(memories, bases, params, beat + n) for beat, beats in reads for n in range(beats)]
    cocotb.start_soon(send(dut, "read", [beat | beats << 32 for beat, beats in reads],
                           stalls(bench.pause, bench.seed + 1)))
    reader = cocotb.start_soon(receive(dut, "read_data", len(expected), stalls(bench.pause, bench.seed + 2)))

    linear = [(rng.randrange(0, 0x4000, 4), rng.choice([0, 1, 2, 7, rng.randint(1, 90)]))
              for _ in range(bench.requests)]
    words = [int.from_bytes(memories[0].read(address + 4 * n, 4), "little")
             for address, count in linear for n in range(count)]
    cocotb.start_soon(send(dut, "linear", [a | n << params.address_bits for a, n in linear],
                           stalls(bench.pause, bench.seed + 3)))
    linear_reader = cocotb.start_soon(receive(dut, "linear_data", len(words), stalls(bench.pause, bench.seed + 4)))

    writes = [(half + 0x2000 // params.port_bytes + rng.randrange(half - 100), rng.randint(0, 60))
              for _ in range(bench.requests)]
    model: dict[int, bytes] = {}
    items = []
    for beat, beats in writes:
        for n in range(beats):
            value, strobe = rng.randbytes(params.beat_bytes), rng.getrandbits(params.beat_bytes)
            items.append(int.from_bytes(value, "little") | strobe << 8 * params.beat_bytes)
            number = beat + n
            old = model.get(number) or beat_at(memories, bases, params, number).to_bytes(params.beat_bytes, "little")
            model[number] = bytes(v if strobe >> b & 1 else o for b, (v, o) in enumerate(zip(value, old)))
    write = cocotb.start_soon(send(dut, "write", [beat | beats << 32 for beat, beats in writes],
                                   stalls(bench.pause, bench.seed + 5)))
    await send(dut, "write_data", items, stalls(bench.pause, bench.seed + 6))
    await write
    await ReadOnly()
    while dut.write_idle.value == 0:
        await RisingEdge(dut.clk)
        await ReadOnly()
    for beat, value in model.items():
        assert beat_at(memories, bases, params, beat).to_bytes(params.beat_bytes, "little") == value, beat
    assert await linear_reader == words
    assert await reader == expected
    for _ in range(5):
        await RisingEdge(dut.clk)
    assert dut.overflow.value == 0
    assert all(monitor.reads_open == monitor.writes_open == 0 for monitor in monitors)


@cocotb.test()
async def room_is_reserved(dut):
    """Nobody takes data: no more is asked for than there is room; then everything comes."""
    bench = await reset(dut)
    params, _, memories, monitors, bases = start(dut, bench)
    beats = 3 * bench.depth + 5
    cocotb.start_soon(send(dut, "read", [beats << 32]))
    cocotb.start_soon(send(dut, "linear", [beats * params.port_bytes // 4 << params.address_bits]))
    for _ in range(200 + 20 * bench.depth):
        await RisingEdge(dut.clk)
    asked = sum(words for address, words in monitors[0].reads)
    # port 0 has both readers' words; both fill their room to less than a chunk
    chunk = max(params.burst_beats, 16)
    assert 2 * bench.depth - 2 * chunk < asked <= 2 * bench.depth, asked
    for monitor in monitors[2::2]:
        assert sum(words for address, words in monitor.reads) <= bench.depth
    got = await receive(dut, "read_data", beats)
    assert got == [beat_at(memories, bases, params, n) for n in range(beats)]
    await receive(dut, "linear_data", beats * params.port_bytes // 4)
    assert dut.overflow.value == 0


@cocotb.test()
async def reads_at_full_rate(dut):
    bench = await reset(dut)
    start(dut, bench)
    beats, requests, begin = 100, 5, cycle()
    cocotb.start_soon(send(dut, "read", [(50 * n) | beats << 32 for n in range(requests)]))
    cycles: list[int] = []
    await receive(dut, "read_data", beats * requests, cycles=cycles)
    assert cycles[0] - begin < 25
    bubbles = cycles[-1] - cycles[0] - (beats * requests - 1)
    assert bubbles == 0, f"{bubbles} idle cycles"


# Not multiples of one another: ports, port_bytes, burst_beats, depth, slow port
SHAPES = [(1, 16, 16, 40, -1), (2, 16, 7, 33, 1), (4, 4, 1, 2, 0), (2, 32, 16, 100, -1)]


def design(ports: int, port_bytes: int, burst_beats: int) -> DesignParams:
    return DesignParams(ports=ports, port_bytes=port_bytes, burst_beats=burst_beats, tables=2, outputs=2,
                        max_head_dim=64)


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("ports, port_bytes, burst_beats, depth, slow_port", SHAPES)
def test_striped(ports: int, port_bytes: int, burst_beats: int, depth: int, slow_port: int, pause: float):
    params = design(ports, port_bytes, burst_beats)
    simulate(Memories(params, depth), __name__, testcase="everything_at_once", params=params.to_dict(), pause=pause,
             slow_port=slow_port, requests=12)


@pytest.mark.parametrize("ports, port_bytes, burst_beats, depth, slow_port", SHAPES[:2])
def test_room_is_reserved(ports: int, port_bytes: int, burst_beats: int, depth: int, slow_port: int):
    params = design(ports, port_bytes, burst_beats)
    simulate(Memories(params, depth), __name__, testcase="room_is_reserved", params=params.to_dict(), pause=0.0,
             depth=depth)


def test_full_rate():
    params = design(2, 32, 16)
    simulate(Memories(params, 100), __name__, testcase="reads_at_full_rate", params=params.to_dict(), pause=0.0)


def test_refuses_impossible_depths():
    for reader in (StripedReader, LinearReader):
        with pytest.raises(ValueError, match="depth"):
            reader(design(2, 16, 16), 1)
