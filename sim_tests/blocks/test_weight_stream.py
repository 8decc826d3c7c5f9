"""rtl/weight_buffer/weight_stream.py with its ports on cocotbext-axi memories, against the golden of records."""

import random
import zlib
from functools import partial
from itertools import pairwise

import cocotb
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.triggers import ReadOnly, RisingEdge

from hls_py.golden.weight_buffer.records import StreamRecord, parse_records
from rtl.contract.design_params import DesignParams
from rtl.contract.register_map import ErrorCause
from rtl.contract.stream_records import RECORD_HEADER, Destination, record
from rtl.memory_ports import axi4
from rtl.memory_ports.read_port import ReadPort
from rtl.streams import shapes
from rtl.weight_buffer.port_fetcher import PortFetcher
from rtl.weight_buffer.record_parser import OUTPUTS
from rtl.weight_buffer.weight_stream import WeightStream
from sim_tests.harness.axi_memory import PortMemory
from sim_tests.harness.axi_monitor import AxiMonitor
from sim_tests.harness.bench import reset, run_bench
from sim_tests.harness.streams import cycle, receive, send, stalls

simulate = partial(run_bench, max_cycles=100_000)  # a hang is to show soon
SIZE = 1 << 17
QUEUE_WORDS = 4
"""Words that a ring's output queue holds, beside the ring."""


class FetchedStream(wiring.Component):
    """A weight stream and its read ports."""

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "extents": In(stream.Signature(shapes.extent(params))), "extents_idle": Out(1),
            **{name: Out(shapes.framed(params)) for name in OUTPUTS},
            "error": Out(1), "error_cause": Out(8), "error_info": Out(32), "beat": Out(1), "ring_full": Out(1),
            "overflow": Out(1), "bus": Out(axi4.read_signature(params)).array(params.ports),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.weights = weights = WeightStream(self.params)
        connect(m, flipped(self.extents), weights.extents)
        for name in OUTPUTS:
            connect(m, getattr(weights, name), flipped(getattr(self, name)))
        for name in ("extents_idle", "error", "error_cause", "error_info"):
            m.d.comb += getattr(self, name).eq(getattr(weights, name))
        m.d.comb += [self.beat.eq(weights.events.beat), self.ring_full.eq(weights.events.ring_full)]
        for p in range(self.params.ports):
            m.submodules[f"port_{p}"] = port = ReadPort(self.params, 1)
            connect(m, weights.port_request[p], port.request[0])
            connect(m, port.data[0], weights.port_data[p])
            connect(m, port.bus, flipped(self.bus[p]))
            with m.If(port.overflow):
                m.d.sync += self.overflow.eq(1)
        return m


def random_records(rng: random.Random, count: int, most: int, beat_bytes: int) -> list[bytes]:
    """Records for all destinations, short ones and one-beat ones among them."""
    lengths = [rng.choice([1, 1, 2, rng.randint(1, most)]) for _ in range(count)]
    return [record(rng.choice(list(Destination)), rng.randbytes(beat_bytes * length), sequence, beat_bytes,
                   flags=rng.randint(0, 1)) for sequence, length in enumerate(lengths)]


class Bench:
    """Memories and monitors of all ports; an image laid into them in extents; what is expected of it."""

    def __init__(self, dut, bench, slow_port: int = -1, latency_cycles: int = 0):
        self.dut, self.seed, self.pause = dut, bench.seed, getattr(bench, "pause", 0.0)
        self.params = params = DesignParams.from_dict(bench.params)
        self.rng = random.Random(bench.seed)
        self.memories = [PortMemory(dut, f"bus__{p}_", SIZE, pause=0.9 if p == slow_port else self.pause,
                                    seed=bench.seed + p, latency_cycles=latency_cycles) for p in range(params.ports)]
        self.monitors = [AxiMonitor(dut, f"bus__{p}", params) for p in range(params.ports)]
        self.extents: list[int] = []
        self.beats = 0

    def load(self, image: bytes, extents: int = 1) -> None:
        """Lay ``image`` into the memories, cut anywhere into ``extents`` pieces (some may be empty)."""
        params, rng = self.params, self.rng
        for memory in self.memories:
            memory.write(0, rng.randbytes(SIZE))  # around the image: garbage
        self.beats = len(image) // params.beat_bytes
        cuts = sorted([0, self.beats, *(rng.randint(0, self.beats) for _ in range(extents - 1))])
        self.extents = []
        at = [rng.randrange(0, 4096, params.port_bytes) for _ in self.memories]
        for first, end in pairwise(cuts):
            extent = end - first
            for p, memory in enumerate(self.memories):
                raw = b"".join(image[n * params.beat_bytes + p * params.port_bytes:][:params.port_bytes]
                               for n in range(first, end))
                assert at[p] + len(raw) <= SIZE, "the image is too long for this bench"
                memory.write(at[p], raw)
                extent |= at[p] << 32 + params.address_bits * p
            self.extents.append(extent)
            at = [a + (end - first + rng.randint(0, 3)) * params.port_bytes for a in at]

    def fetch(self):
        return cocotb.start_soon(send(self.dut, "extents", self.extents, stalls(self.pause, self.seed + 7)))

    def expect(self, records: list[StreamRecord]) -> list:
        """Receivers for all outputs, and what each must receive."""
        size, tasks = self.params.beat_bytes, []
        for number, name in enumerate(OUTPUTS):
            items = []
            for r in records:
                if r.destination == number:
                    count = len(r.payload) // size
                    items += [int.from_bytes(r.payload[n * size:(n + 1) * size], "little") | (
                        (n == 0) | (n == count - 1) << 1 | (r.flags & 1) << 2) << 8 * size for n in range(count)]
            task = cocotb.start_soon(receive(self.dut, name, len(items), stalls(self.pause, self.seed + 20 + number)))
            tasks.append((name, task, items))
        return tasks


async def all_received(tasks) -> None:
    for name, task, items in tasks:
        got = await task
        wrong = next((n for n, (a, b) in enumerate(zip(got, items)) if a != b), None)
        assert wrong is None and len(got) == len(items), f"{name}: item {wrong} is wrong"


@cocotb.test()
async def records_arrive(dut):
    bench = await reset(dut)
    params = DesignParams.from_dict(bench.params)
    rng = random.Random(bench.seed)
    image = b"".join(random_records(rng, bench.records, bench.most, params.beat_bytes))
    b = Bench(dut, bench, bench.slow_port)
    b.load(image, bench.extents)
    tasks = b.expect(list(parse_records(image, params.beat_bytes)))
    await RisingEdge(dut.clk)
    b.fetch()
    beats = 0
    while beats < b.beats:
        await RisingEdge(dut.clk)
        beats += int(dut.beat.value)
    await all_received(tasks)
    for _ in range(8):
        await RisingEdge(dut.clk)
    assert dut.extents_idle.value == 1 and dut.error.value == 0 and dut.overflow.value == 0
    for monitor in b.monitors:
        assert monitor.reads_open == 0 and monitor.words_read == b.beats


@cocotb.test()
async def no_word_without_room(dut):
    """Nobody takes payload: every ring fills, none is asked for more than it holds; then everything comes."""
    bench = await reset(dut)
    params = DesignParams.from_dict(bench.params)
    rng = random.Random(bench.seed)
    image = b"".join(record(Destination.CODES, rng.randbytes(params.beat_bytes * 9), n, params.beat_bytes)
                     for n in range(3 * params.ring_words // 10 + 1))
    b = Bench(dut, bench, latency_cycles=10)
    b.load(image, bench.extents)
    b.fetch()
    full = 0
    for _ in range(12 * params.ring_words + 400):
        await RisingEdge(dut.clk)
        full = int(dut.ring_full.value)
    most = params.ring_words + QUEUE_WORDS + 2  # a header and a payload beat went on
    for monitor in b.monitors:
        asked = sum(beats for _, beats in monitor.reads)
        assert most - PortFetcher(params).chunk_words < asked <= most, f"{asked} words for {most}"
    await RisingEdge(dut.clk)
    assert full == 1 and dut.overflow.value == 0 and dut.extents_idle.value == 0
    await all_received(b.expect(list(parse_records(image, params.beat_bytes))))
    assert dut.overflow.value == 0


@cocotb.test()
async def full_rate(dut):
    """Behind a latency that the ring covers: a beat a cycle from the first to the last, over records and extents."""
    bench = await reset(dut)
    params = DesignParams.from_dict(bench.params)
    rng = random.Random(bench.seed)
    image = b"".join(record(Destination.CODES, rng.randbytes(params.beat_bytes * 60), n, params.beat_bytes)
                     for n in range(12))
    b = Bench(dut, bench, latency_cycles=bench.latency_cycles)
    b.load(image, extents=3)
    start = cycle()
    b.fetch()
    taken: list[int] = []
    items = await receive(dut, "codes", 12 * 60, cycles=taken)
    assert len(items) == 720
    # 10 cycles: extent queue, fetcher, port; then the memory model's own
    assert taken[0] - start <= bench.latency_cycles + 10 + WeightStream.latency_cycles + 10, taken[0] - start
    idle = taken[-1] - taken[0] + 1 - 720 - 11  # a header between two records
    assert idle == 0, f"{idle} cycles in which no beat came"


@cocotb.test()
async def latency(dut):
    """A record of one payload beat: from its word on the last bus (the port takes a cycle) to its offer."""
    bench = await reset(dut)
    b = Bench(dut, bench)
    b.load(record(Destination.GAINS, bytes(b.params.beat_bytes), 0, b.params.beat_bytes))
    b.fetch()
    buses = [getattr(dut, f"bus__{p}__rvalid") for p in range(b.params.ports)]
    words = [0] * b.params.ports
    while min(words) < 2:
        await RisingEdge(dut.clk)
        words = [count + int(bus.value) for count, bus in zip(words, buses)]
    last_word = cycle()
    await ReadOnly()
    while not dut.gains__valid.value:
        await RisingEdge(dut.clk)
        await ReadOnly()
    assert cycle() - last_word == WeightStream.latency_cycles


async def error_after(b: Bench, image: bytes, payload_beats: int) -> tuple[int, int]:
    """Cause and info of the error that ``image`` raises; at most ``payload_beats`` may have come out before."""
    b.load(image)
    fetch = b.fetch()
    dut, came, after = b.dut, 0, 0
    for name in OUTPUTS:
        getattr(dut, f"{name}__ready").value = 1
    while after < 40:
        await RisingEdge(dut.clk)
        came += sum(int(getattr(dut, f"{name}__valid").value) for name in OUTPUTS)
        after += int(dut.error.value)
    assert dut.error.value == 1 and dut.overflow.value == 0
    assert came <= payload_beats, f"{came} payload beats came, {payload_beats} were in front of the fault"
    await fetch
    return int(dut.error_cause.value), int(dut.error_info.value)


@cocotb.test()
async def faults(dut):
    """One fault after another, with a reset between: each gives its cause and the right sequence number."""
    bench = await reset(dut)
    b = Bench(dut, bench)
    size, rng = b.params.beat_bytes, random.Random(bench.seed)
    records = [record(Destination(n % 4), rng.randbytes(size * (n + 1)), 40 + n, size) for n in range(5)]
    before = [n * (n + 1) // 2 for n in range(6)]  # payload beats in front of record n

    def changed(number: int, **fields) -> bytes:
        """Record ``number`` with header fields changed and its CRC made right again."""
        values = {k: int(v) for k, v in RECORD_HEADER.unpack(records[number]).items()} | fields
        blank = RECORD_HEADER.pack(**values | {"crc": 0}).ljust(size, b"\0")
        crc = zlib.crc32(records[number][size:], zlib.crc32(blank))
        return RECORD_HEADER.pack(**values | {"crc": crc}).ljust(size, b"\0") + records[number][size:]

    def with_flipped_bit(number: int, bit: int) -> bytes:
        raw = bytearray(records[number])
        raw[bit // 8] ^= 1 << bit % 8
        return bytes(raw)

    def image_with(number: int, raw: bytes) -> bytes:
        return b"".join([*records[:number], raw, *records[number + 1:], *records])

    bits = 8 * len(records[2])
    cases = [
        (ErrorCause.RECORD_MAGIC, 42, before[2], image_with(2, changed(2, magic=0x7E10))),
        (ErrorCause.RECORD_MAGIC, 0, 0, image_with(0, bytes(len(records[0])))),
        (ErrorCause.RECORD_FRAMING, 43, before[3], image_with(3, changed(3, destination=4))),
        (ErrorCause.RECORD_FRAMING, 43, before[3], image_with(3, changed(3, beats=0))),
        *((ErrorCause.RECORD_CRC, 42, 3 + before[3], image_with(2, with_flipped_bit(2, bit)))
          for bit in (25, 96, 127, 8 * size - 1, 8 * size, bits - 1)),
        (ErrorCause.RECORD_CRC, 40, 3 + before[1], image_with(0, with_flipped_bit(0, 8 * size + 5))),
    ]
    for cause, info, payload_beats, image in cases:
        with pytest.raises(ValueError, match="sequence"):
            list(parse_records(image, size))
        assert await error_after(b, image, payload_beats) == (cause, info), image[:64].hex()
        while any(monitor.reads_open for monitor in b.monitors):
            await RisingEdge(dut.clk)
        dut.rst.value = 1
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.clk)


# ports, port_bytes, burst_beats, ring_words, slow_port
SHAPES = [(1, 16, 16, 64, -1), (2, 32, 7, 64, 1), (4, 4, 1, 4, 2), (4, 16, 16, 128, 0)]


def design(ports: int, port_bytes: int, burst_beats: int, ring_words: int) -> DesignParams:
    return DesignParams(ports=ports, port_bytes=port_bytes, burst_beats=burst_beats, ring_words=ring_words, tables=2,
                        outputs=2, max_head_dim=64)


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("ports, port_bytes, burst_beats, ring_words, slow_port", SHAPES)
def test_records(ports: int, port_bytes: int, burst_beats: int, ring_words: int, slow_port: int, pause: float):
    params = design(ports, port_bytes, burst_beats, ring_words)
    simulate(FetchedStream(params), __name__, testcase="records_arrive", params=params.to_dict(), pause=pause,
             records=30, most=60, extents=7, slow_port=slow_port if pause else -1)


@pytest.mark.parametrize("ports, port_bytes, burst_beats, ring_words, slow_port", SHAPES[1:3])
def test_room(ports: int, port_bytes: int, burst_beats: int, ring_words: int, slow_port: int):
    params = design(ports, port_bytes, burst_beats, ring_words)
    simulate(FetchedStream(params), __name__, testcase="no_word_without_room", params=params.to_dict(), extents=3)


def test_full_rate():
    params = design(*SHAPES[3][:4])
    simulate(FetchedStream(params), __name__, testcase="full_rate", params=params.to_dict(), latency_cycles=60)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_latency(shape):
    params = design(*shape[:4])
    simulate(FetchedStream(params), __name__, testcase="latency", params=params.to_dict())


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]])
def test_faults(shape):
    params = design(*shape[:4])
    simulate(FetchedStream(params), __name__, testcase="faults", params=params.to_dict())


def test_golden_of_records():
    """What the benches don't reach: whole streams that are no streams, and what a good record yields."""
    good = record(Destination.GAINS, bytes(range(40)), 7, 16, flags=1)
    assert list(parse_records(good * 2, 16))[1] == StreamRecord(Destination.GAINS, 1, 7, 4, bytes(range(40)) + bytes(8))
    assert list(parse_records(b"", 16)) == []
    with pytest.raises(ValueError, match="not a multiple"):
        list(parse_records(good[:-1], 16))
    with pytest.raises(ValueError, match=r"record 1 at beat 4 \(sequence 7\): the stream ends after 2 of 3"):
        list(parse_records(good + good[:-16], 16))


def test_refuses_impossible_queues():
    with pytest.raises(ValueError, match="queue"):
        PortFetcher(design(*SHAPES[0][:4]), queue=0)
