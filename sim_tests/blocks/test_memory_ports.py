"""rtl/memory_ports/read_port.py and write_port.py against cocotbext-axi memories."""

import random
from functools import partial

import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge

from rtl.contract.design_params import DesignParams
from rtl.memory_ports.read_port import ReadPort
from rtl.memory_ports.write_port import WritePort
from sim_tests.harness.axi_memory import PortMemory
from sim_tests.harness.axi_monitor import AxiMonitor
from sim_tests.harness.bench import reset, run_bench
from sim_tests.harness.streams import cycle, receive, send, stalls

simulate = partial(run_bench, max_cycles=100_000)  # a hang is to show soon
SIZE = 1 << 16
ADDRESS_BITS = 40


def params_of(port_bytes: int, burst_beats: int) -> DesignParams:
    """A design with ports of ``port_bytes``; the other parameters don't reach the ports."""
    return DesignParams(ports=max(1, 16 // port_bytes), port_bytes=port_bytes, burst_beats=burst_beats, tables=2,
                        outputs=2, ring_words=1024, max_head_dim=64)


def random_requests(rng: random.Random, count: int, port_bytes: int, most: int, low: int, high: int):
    """(address, beats) within [low, high); a third of them end or begin around a 4096-byte boundary."""
    requests = []
    for _ in range(count):
        beats = min(rng.choice([1, 2, rng.randint(1, most), most]), (high - low) // port_bytes)
        first = rng.randrange(low, high - beats * port_bytes + 1, port_bytes)
        if rng.random() < 0.33:
            page = rng.randrange(low, high, 4096) // 4096 * 4096 + port_bytes * rng.randint(-3, 3)
            first = page if low <= page <= high - beats * port_bytes else first
        requests.append((first, beats))
    return requests


def request_payload(address: int, beats: int) -> int:
    return address | beats << ADDRESS_BITS


def word_at(memory: PortMemory, address: int, port_bytes: int) -> int:
    return int.from_bytes(memory.read(address, port_bytes), "little")


async def settled(dut, cycles: int = 1) -> None:
    for _ in range(cycles):
        await RisingEdge(dut.clk)
    await ReadOnly()


class Watch:
    """Counts the cycles in which a signal is 1."""

    def __init__(self, dut, name: str):
        self.count, self.signal, self.clk = 0, getattr(dut, name), dut.clk
        cocotb.start_soon(self._run())

    async def _run(self):
        while True:
            await RisingEdge(self.clk)
            self.count += int(self.signal.value)


# ---- reads ------------------------------------------------------------------------------------------------------


@cocotb.test()
async def reads_are_right(dut):
    bench = await reset(dut)
    params = params_of(bench.port_bytes, bench.burst_beats)
    rng = random.Random(bench.seed)
    memory = PortMemory(dut, "bus_", SIZE, pause=bench.pause, seed=bench.seed)
    memory.write(0, rng.randbytes(SIZE))
    monitor, overflow, error = AxiMonitor(dut, "bus", params), Watch(dut, "overflow"), Watch(dut, "error")

    receivers, expected = [], []
    for c in range(bench.clients):
        requests = random_requests(rng, bench.requests, bench.port_bytes, bench.most, 0, SIZE)
        words = [(word_at(memory, a + n * bench.port_bytes, bench.port_bytes), n == beats - 1)
                 for a, beats in requests for n in range(beats)]
        requests.insert(1, (64, 0))  # zero beats: taken, nothing comes
        expected.append([word | last << 8 * bench.port_bytes for word, last in words])
        cocotb.start_soon(send(dut, f"request__{c}", [request_payload(*r) for r in requests],
                               stalls(bench.pause, bench.seed + 10 + c)))
        receivers.append(cocotb.start_soon(receive(dut, f"data__{c}", len(words))))
    for receiver, words in zip(receivers, expected):
        assert await receiver == words
    await settled(dut, 3)
    assert overflow.count == 0 and error.count == 0 and monitor.reads_open == 0 and dut.outstanding.value == 0


@cocotb.test()
async def a_long_read_keeps_the_bus_busy(dut):
    bench = await reset(dut)
    beats, start = 600, cycle()
    memory = PortMemory(dut, "bus_", SIZE)
    monitor = AxiMonitor(dut, "bus", params_of(bench.port_bytes, bench.burst_beats))
    cocotb.start_soon(send(dut, "request__0", [request_payload(0, beats)]))
    for _ in range(ReadPort.address_latency_cycles):
        await ReadOnly()
        assert dut.bus__arvalid.value == 0
        await RisingEdge(dut.clk)
    await ReadOnly()
    assert dut.bus__arvalid.value == 1
    await RisingEdge(dut.clk)
    cycles: list[int] = []
    words = await receive(dut, "data__0", beats, cycles=cycles)
    assert len(words) == beats and memory.size == SIZE
    assert cycles[-1] - cycles[0] == beats - 1, "the bus was idle between bursts"
    assert cycles[0] - start <= ReadPort.address_latency_cycles + 8
    assert len(monitor.reads) == -(-beats // bench.burst_beats)


@cocotb.test()
async def priority_and_no_starvation(dut):
    """Both clients have bursts to cut: client 0 gets nearly all, client 1 at least its share."""
    bench = await reset(dut)
    PortMemory(dut, "bus_", SIZE)
    monitor = AxiMonitor(dut, "bus", params_of(bench.port_bytes, bench.burst_beats))
    dut.data__0__ready.value = dut.data__1__ready.value = 1
    for c in (0, 1):
        cocotb.start_soon(send(dut, f"request__{c}", [request_payload(0x8000 * c, 640)] * 20))
    while len(monitor.reads) < 320:
        await RisingEdge(dut.clk)
    second = sum(address >= 0x8000 for address, _ in monitor.reads)
    # every 32nd, and one in the cycle between two requests of client 0
    assert 320 // 32 - 1 <= second <= 320 // 32 + 320 // 160 + 1, f"client 1 got {second} of 320 bursts"


@cocotb.test()
async def read_errors_and_overflow(dut):
    bench = await reset(dut)
    params = params_of(bench.port_bytes, bench.burst_beats)
    PortMemory(dut, "bus_", SIZE, bad={5 * bench.port_bytes}, pause=bench.pause, seed=bench.seed)
    monitor, overflow, error = AxiMonitor(dut, "bus", params), Watch(dut, "overflow"), Watch(dut, "error")
    cocotb.start_soon(send(dut, "request__0", [request_payload(0, 4)]))
    await receive(dut, "data__0", 4)
    await settled(dut, 4)
    assert error.count == 0 and overflow.count == 0
    await RisingEdge(dut.clk)
    cocotb.start_soon(send(dut, "request__0", [request_payload(0, 8)]))
    await receive(dut, "data__0", 8)
    await settled(dut, 4)
    assert error.count == 1 and monitor.read_errors == 1 and overflow.count == 0
    await RisingEdge(dut.clk)
    await send(dut, "request__0", [request_payload(64 * bench.port_bytes, 3)])  # nobody is ready
    while monitor.words_read < 15:
        await RisingEdge(dut.clk)
    await settled(dut, 4)
    assert overflow.count == 3


@cocotb.test()
async def reads_settle_after_stop(dut):
    bench = await reset(dut)
    params = params_of(bench.port_bytes, bench.burst_beats)
    PortMemory(dut, "bus_", SIZE, pause=bench.pause, seed=bench.seed)
    monitor, overflow = AxiMonitor(dut, "bus", params), Watch(dut, "overflow")
    rng = random.Random(bench.seed)
    for _ in range(bench.stops):
        dut.data__0__ready.value = dut.data__1__ready.value = 1
        senders = [cocotb.start_soon(send(dut, f"request__{c}", [request_payload(0, 200)] * 3)) for c in (0, 1)]
        for _ in range(rng.randint(0, 60)):
            await RisingEdge(dut.clk)
        dut.stop.value = 1
        dut.data__0__ready.value = dut.data__1__ready.value = 0  # discarded data must not count as overflow
        await RisingEdge(dut.clk)
        bursts = len(monitor.reads) + int(dut.bus__arvalid.value)
        for sender in senders:
            await sender  # requests are swallowed
        while dut.outstanding.value != 0:
            await RisingEdge(dut.clk)
        await settled(dut, 5)
        assert monitor.reads_open == 0 and dut.bus__arvalid.value == 0
        assert len(monitor.reads) <= bursts + 1
        assert dut.data__0__valid.value == 0 and dut.data__1__valid.value == 0
        await RisingEdge(dut.clk)
        dut.stop.value = 0
    assert overflow.count == 0


# ---- writes -----------------------------------------------------------------------------------------------------


@cocotb.test()
async def writes_are_right(dut):
    bench = await reset(dut)
    params = params_of(bench.port_bytes, bench.burst_beats)
    rng = random.Random(bench.seed)
    memory = PortMemory(dut, "bus_", SIZE, pause=bench.pause, seed=bench.seed)
    model = bytearray(rng.randbytes(SIZE))
    memory.write(0, bytes(model))
    monitor, error = AxiMonitor(dut, "bus", params), Watch(dut, "error")

    senders, share = [], SIZE // bench.clients // 4096 * 4096
    for c in range(bench.clients):  # clients write to different places: between them there is no order
        requests = random_requests(rng, bench.requests, bench.port_bytes, bench.most, c * share, (c + 1) * share)
        words = []
        for address, beats in requests:
            for n in range(beats):
                strobe = rng.choice([(1 << bench.port_bytes) - 1, 0, rng.getrandbits(bench.port_bytes)])
                data = rng.randbytes(bench.port_bytes)
                words.append(int.from_bytes(data, "little") | strobe << 8 * bench.port_bytes)
                for b in range(bench.port_bytes):
                    if strobe >> b & 1:
                        model[address + n * bench.port_bytes + b] = data[b]
        senders += [
            cocotb.start_soon(send(dut, f"request__{c}", [request_payload(*r) for r in requests],
                                   stalls(bench.pause, bench.seed + 10 + c))),
            cocotb.start_soon(send(dut, f"data__{c}", words, stalls(bench.pause, bench.seed + 20 + c)))]
    for sender in senders:
        await sender
    await ReadOnly()
    while int(dut.idle.value) != (1 << bench.clients) - 1:
        await RisingEdge(dut.clk)
        await ReadOnly()
    assert dut.outstanding.value == 0
    await RisingEdge(dut.clk)
    assert monitor.writes_open == 0
    assert memory.read(0, SIZE) == bytes(model)
    assert error.count == 0


@cocotb.test()
async def a_long_write_keeps_the_bus_busy(dut):
    bench = await reset(dut)
    PortMemory(dut, "bus_", SIZE)
    monitor = AxiMonitor(dut, "bus", params_of(bench.port_bytes, bench.burst_beats))
    beats = 400
    cocotb.start_soon(send(dut, "request__0", [request_payload(0, beats)]))
    taken = await send(dut, "data__0", [n | 1 << 8 * bench.port_bytes for n in range(beats)])
    while monitor.words_written < beats:
        await RisingEdge(dut.clk)
    # a burst begins when its words are here: one burst's length of delay, then a word a cycle
    assert cycle() - taken[0] <= beats + bench.burst_beats + 12


@cocotb.test()
async def a_slow_client_holds_nobody(dut):
    """Client 0 owes words of its second burst: client 1 writes all the same, and no address waits for words."""
    bench = await reset(dut)
    burst = bench.burst_beats
    memory = PortMemory(dut, "bus_", SIZE)
    monitor = AxiMonitor(dut, "bus", params_of(bench.port_bytes, burst))
    payload = (1 << 9 * bench.port_bytes) - 1
    cocotb.start_soon(send(dut, "request__0", [request_payload(0, 2 * burst)]))
    await send(dut, "data__0", [payload] * (2 * burst - 1))
    cocotb.start_soon(send(dut, "request__1", [request_payload(0x4000, 3 * burst)]))
    cocotb.start_soon(send(dut, "data__1", [payload] * (3 * burst)))
    await settled(dut, 2)
    while int(dut.idle.value) != 2:
        await settled(dut)
    assert monitor.words_written == 4 * burst and monitor.writes_open == 0
    await RisingEdge(dut.clk)
    await send(dut, "data__0", [payload])
    await ReadOnly()
    while int(dut.idle.value) != 3:
        await settled(dut)
    assert memory.read(0, SIZE // 2).count(255) == 5 * burst * bench.port_bytes


@cocotb.test()
async def write_errors(dut):
    bench = await reset(dut)
    params = params_of(bench.port_bytes, bench.burst_beats)
    PortMemory(dut, "bus_", SIZE, bad={5 * bench.port_bytes}, pause=bench.pause, seed=bench.seed)
    monitor, error = AxiMonitor(dut, "bus", params), Watch(dut, "error")
    cocotb.start_soon(send(dut, "request__0", [request_payload(0, 8)]))
    cocotb.start_soon(send(dut, "data__0", [(1 << 9 * bench.port_bytes) - 1] * 8))
    for expected in ("busy", "idle"):
        await settled(dut, 3)
        while expected == "idle" and int(dut.idle.value) & 1 == 0:
            await settled(dut)
        assert (int(dut.idle.value) & 1) == (expected == "idle")
    await settled(dut, 2)
    assert error.count == 1 and monitor.write_errors == 1


@cocotb.test()
async def writes_settle_after_stop(dut):
    """After stop no word is written with a strobe, every burst is finished, nothing hangs."""
    bench = await reset(dut)
    params = params_of(bench.port_bytes, bench.burst_beats)
    memory = PortMemory(dut, "bus_", SIZE, pause=bench.pause, seed=bench.seed)
    monitor = AxiMonitor(dut, "bus", params)
    rng = random.Random(bench.seed)
    payload = (1 << 9 * bench.port_bytes) - 1
    for _ in range(bench.stops):
        senders = [cocotb.start_soon(send(dut, f"{kind}__{c}", items)) for c in (0, 1)
                   for kind, items in (("request", [request_payload(0x4000 * c, 200)] * 2), ("data", [payload] * 400))]
        for _ in range(rng.randint(0, 120)):
            await RisingEdge(dut.clk)
        dut.stop.value = 1
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        while dut.bus__wvalid.value == 1 and dut.bus__wready.value == 0:
            await RisingEdge(dut.clk)  # a word that was offered before the stop stays as it is
        await RisingEdge(dut.clk)
        before = monitor.words_written
        strobed = 0
        while dut.outstanding.value != 0:
            await RisingEdge(dut.clk)
            strobed += int(dut.bus__wvalid.value) and int(dut.bus__wstrb.value)
        assert strobed == 0, f"{monitor.words_written - before} words after the stop, some with strobes"
        await settled(dut, 5)
        assert monitor.writes_open == 0 and dut.bus__awvalid.value == 0 and dut.bus__wvalid.value == 0
        await RisingEdge(dut.clk)
        for sender in senders:
            sender.cancel()
        for c in (0, 1):
            getattr(dut, f"request__{c}__valid").value = getattr(dut, f"data__{c}__valid").value = 0
        dut.rst.value = 1
        dut.stop.value = 0
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.clk)
    assert memory.read(0, 4) in (bytes(4), b"\xff" * 4)


# ---- entries ----------------------------------------------------------------------------------------------------

SHAPES = [(4, 1, 1), (16, 16, 2), (32, 7, 3), (16, 256, 1)]  # port_bytes, burst_beats, clients


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("port_bytes, burst_beats, clients", SHAPES)
def test_reads(port_bytes: int, burst_beats: int, clients: int, pause: float):
    simulate(ReadPort(params_of(port_bytes, burst_beats), clients), __name__, testcase="reads_are_right", pause=pause,
             port_bytes=port_bytes, burst_beats=burst_beats, clients=clients, requests=25 // clients, most=70)


def test_long_read():
    simulate(ReadPort(params_of(16, 16), 2), __name__, testcase="a_long_read_keeps_the_bus_busy", port_bytes=16,
             burst_beats=16)


def test_read_priority():
    simulate(ReadPort(params_of(16, 4), 2), __name__, testcase="priority_and_no_starvation", port_bytes=16,
             burst_beats=4)


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("testcase", ["read_errors_and_overflow", "reads_settle_after_stop"])
def test_read_trouble(testcase: str, pause: float):
    simulate(ReadPort(params_of(16, 16), 2), __name__, testcase=testcase, pause=pause, port_bytes=16, burst_beats=16,
             stops=12)


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("port_bytes, burst_beats, clients", SHAPES)
def test_writes(port_bytes: int, burst_beats: int, clients: int, pause: float):
    simulate(WritePort(params_of(port_bytes, burst_beats), clients), __name__, testcase="writes_are_right",
             pause=pause, port_bytes=port_bytes, burst_beats=burst_beats, clients=clients, requests=25 // clients,
             most=70)


def test_long_write():
    simulate(WritePort(params_of(16, 16), 2), __name__, testcase="a_long_write_keeps_the_bus_busy", port_bytes=16,
             burst_beats=16)


def test_slow_writer():
    simulate(WritePort(params_of(16, 16), 2), __name__, testcase="a_slow_client_holds_nobody", port_bytes=16,
             burst_beats=16, max_cycles=5000)


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("testcase", ["write_errors", "writes_settle_after_stop"])
def test_write_trouble(testcase: str, pause: float):
    simulate(WritePort(params_of(16, 16), 2), __name__, testcase=testcase, pause=pause, port_bytes=16, burst_beats=16,
             stops=12)


@pytest.mark.parametrize("port", [ReadPort, WritePort])
def test_refuses_impossible_ports(port):
    with pytest.raises(ValueError, match="bursts"):
        port(params_of(16, 16), 1, bursts=0)
