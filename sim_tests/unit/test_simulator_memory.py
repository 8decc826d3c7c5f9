"""The simulator's library, with a design that copies memory: values, timing of the memory model, rules, faults."""

import numpy as np
import pytest

from hls_py.boards import load_board
from host.memory_map import MemoryMap
from rtl.contract import register_map
from rtl.contract.design_params import DesignParams
from rtl.contract.image_manifest import ImageManifest, Span
from sim_tests.harness.simulator_library import SimulatorLibrary
from sim_tests.unit.copy_machine import DEFECTS, copy_machine_library

SIZE = 1 << 20
DESIGNS = {
    "two ports of 32": DesignParams(),
    "one port of 16": DesignParams(ports=1, port_bytes=16, address_bits=32, burst_beats=7, tables=5, ring_words=32),
    "four ports of 4": DesignParams(ports=4, port_bytes=4, burst_beats=256, tables=5, ring_words=1024),
    "two ports of 64": DesignParams(port_bytes=64, burst_beats=3),
}
SLAVE_ERROR, DECODE_ERROR = 2, 3


class Copier:
    """A simulation of the copy machine with random memory."""

    def __init__(self, params: DesignParams, seed: int = 0):
        self.params = params
        self.sim = SimulatorLibrary(copy_machine_library(params), SIZE)
        self.sim.memory[:] = np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)
        self.write("INTERRUPT_ENABLE", 3)

    def write(self, name: str, value: int, index: int = 0) -> None:
        assert self.sim.write_register(register_map.address(name, index), value) == 0

    def read(self, name: str, index: int = 0) -> int:
        return self.sim.read_register(register_map.address(name, index))

    def source(self, port: int) -> int:
        return 0x1000 - 3 * self.params.port_bytes + port * SIZE // 8

    def target(self, port: int) -> int:
        return SIZE // 2 + 0x800 + port * SIZE // 8 + self.params.port_bytes

    def start(self, beats: int, masked: bool = False) -> None:
        for port in range(self.params.ports):
            self.write("TABLE_BASE", self.source(port), 2 * port)
            self.write("KV_BASE", self.target(port), 2 * port)
        self.write("PASS_ADDRESS_LOW", beats | masked << 31)
        self.write("PASS_ADDRESS_HIGH", 0)

    def finish(self, most: int = 200_000) -> int:
        """Cycles until the interrupt, which must come."""
        cycles = self.sim.run(most, until_interrupt=True)
        assert self.sim.interrupt, "the copy doesn't end"
        self.write("INTERRUPT_STATUS", 3)
        return cycles

    def copy(self, beats: int, masked: bool = False) -> int:
        """Copy and compare the whole memory; cycles that it took."""
        expected = self.sim.memory.copy()
        step = 2 if masked else 1
        for port in range(self.params.ports):
            source, count = self.source(port), beats * self.params.port_bytes
            expected[self.target(port):self.target(port) + count:step] = expected[source:source + count:step]
        self.start(beats, masked)
        cycles = self.finish()
        wrong = np.flatnonzero(self.sim.memory != expected)
        assert not len(wrong), f"{len(wrong)} bytes are wrong, the first at 0x{wrong[0]:x}"
        return cycles

    def stall(self, per_million: int, seed: int) -> None:
        for channel in ("ar", "r", "aw", "w", "b"):
            self.sim.set(f"stall_{channel}_per_million", per_million)
        self.sim.set("stall_seed", seed)


@pytest.fixture
def copier():
    made = Copier(DESIGNS["two ports of 32"])
    yield made
    made.sim.close()


@pytest.mark.parametrize("name", DESIGNS)
def test_copies_whatever_the_memory_does(name):
    copier = Copier(DESIGNS[name], seed=1)
    assert copier.read("ID") == register_map.IDENTITY
    beats = 300
    quick = copier.copy(beats)
    copier.copy(7, masked=True)
    for seed in range(3):
        copier.stall(400_000, seed)
        copier.sim.set("rate_beats_per_million_cycles", 700_000, port=0)
        copier.sim.set("read_latency_cycles", 30 + seed, port=-1)
        copier.sim.set("outstanding_reads", 1 + 3 * seed)
        copier.sim.set("outstanding_writes", 1 + seed)
        copier.sim.set("turnaround_cycles", 5 * seed)
        copier.sim.set("refresh_interval_cycles", 200)
        copier.sim.set("refresh_cycles", 50)
        assert copier.copy(beats, masked=bool(seed & 1)) > 2 * quick
    assert copier.sim.violation == "" and copier.sim.get("violations") == 0 and copier.sim.get("decode_errors") == 0
    assert copier.sim.get("reads_open") == copier.sim.get("writes_open") == 0
    ports = copier.params.ports
    assert copier.sim.get("read_beats") == copier.sim.get("write_beats") == (4 * beats + 7) * ports
    assert copier.sim.get("read_bursts", 0) > 4 * beats // copier.params.burst_beats
    assert copier.read("PASSES_DONE") == 0


def test_stalls_repeat_with_their_seed(copier):
    cycles = []
    for seed in (5, 6, 5):
        copier.stall(300_000, seed)
        cycles.append(copier.copy(200))
        copier.sim.reset()
        copier.write("INTERRUPT_ENABLE", 3)
    assert cycles[0] == cycles[2] != cycles[1]


# ---- timing -------------------------------------------------------------------------------------------------------


def test_ideal_memory_moves_a_beat_a_cycle(copier):
    assert copier.copy(1000) <= 1000 + 40


@pytest.mark.parametrize("direction", ["read", "write"])
def test_latency_is_what_was_set(copier, direction):
    copier.copy(1)
    base = copier.copy(1)
    copier.sim.set(f"{direction}_latency_cycles", 101)
    assert copier.copy(1) == base + 100


@pytest.mark.parametrize("rate", [1_000_000, 999_000, 700_000, 250_000, 31_415])
def test_rate_is_shared_by_both_directions(copier, rate):
    """A copied beat is two on the port; at the highest rate neither direction waits for the other."""
    beats = 600
    copier.sim.set("rate_beats_per_million_cycles", rate)
    expected = beats if rate == 1_000_000 else 2 * beats * 1e6 / rate
    assert copier.copy(beats) == pytest.approx(expected, rel=0.02, abs=40)


def test_slowest_port_decides(copier):
    copier.sim.set("rate_beats_per_million_cycles", 400_000, port=1)
    assert copier.copy(500) == pytest.approx(2 * 500 / 0.4, rel=0.02)


def test_refresh_takes_its_share(copier):
    copier.sim.set("refresh_interval_cycles", 100)
    copier.sim.set("refresh_cycles", 25)
    assert copier.copy(3000) == pytest.approx(3000 / 0.75, rel=0.02)


@pytest.mark.parametrize("name", ["ideal", "placed", "unplaced"])
def test_the_kv260s_memories(name):
    """Each port's rate by itself (the others ideal), all ports in step at the slowest's rate, and the latencies."""
    board = load_board("kv260")
    settings = [vars(port) for port in board.memories[name].ports]
    ideal = vars(board.memories["ideal"].ports[0])
    measured = {"ideal": [4.0e9] * 4, "placed": [3.95e9, 3.77e9, 3.76e9, 3.91e9],
                "unplaced": [3.83e9, 3.02e9, 3.01e9, 3.79e9]}[name]
    copier = Copier(DESIGNS["four ports of 4"])  # settings are in beats and cycles, whatever a beat's width

    def give(port: int, values: dict) -> None:
        for key, value in values.items():
            copier.sim.set(key, value, port)

    # The copier has too few beats under way to hide a latency, so the rates are looked at without.
    latencies = {key: ideal[key] for key in ("read_latency_cycles", "write_latency_cycles")}
    beats = 3000
    for slow in (0, 1, 2, 3, None):
        for port in range(4):
            give(port, settings[port] | latencies if slow in (port, None) else ideal)
        rate = min(measured) if slow is None else measured[slow]
        cycles = copier.copy(beats)
        if name == "ideal":  # a port that never waits moves both directions' beats in one cycle
            assert cycles < 1.1 * beats
        else:
            assert cycles == pytest.approx(2 * beats * 4.0e9 / rate, rel=0.01, abs=150)
    for port in range(4):
        give(port, ideal)
    quick = copier.copy(1)
    for port in range(4):
        give(port, settings[port])
    latency = sum(settings[0][key] - ideal[key] for key in latencies)
    assert latency == (0 if name == "ideal" else 59 + 29)
    refresh = settings[0]["refresh_cycles"]
    assert quick + latency <= copier.copy(1) <= quick + latency + refresh + 4
    copier.sim.close()


@pytest.mark.parametrize("name", ["ideal", "placed", "unplaced"])
def test_ports_streams_start_where_the_memory_says(name):
    """Every port's part of weights, tables and KV cache starts at its offset modulo 64 KiB."""
    board = load_board("kv260")
    offsets = board.memories[name].start_offsets_bytes
    span = Span(0, 1)
    manifest = ImageManifest(1, "", "", span, span, span, span, 16, 1000, 300, 2, 4, 96, 3001, 8)
    memory = MemoryMap(board.params, manifest, 12345, 1 << 26, offsets, 70_001, 333, 9999)
    for region in (memory.stream, memory.tables, memory.kv):
        assert tuple(base % (1 << 16) for base in region.bases) == offsets


def test_turnaround_costs_at_every_change(copier):
    copier.sim.set("outstanding_reads", 1)
    copier.copy(160)
    base = copier.copy(160)
    copier.sim.set("turnaround_cycles", 20)
    changes = 2 * 160 / 16  # bursts of 16 beats, read and written in turn
    assert copier.copy(160) - base == pytest.approx(20 * changes, rel=0.3)


def test_bandwidth_of_bursts_in_flight(copier):
    """One burst of 16 beats a round trip of latency when only one may be open; more hide it."""
    copier.sim.set("read_latency_cycles", 100)
    copier.sim.set("outstanding_reads", 1)
    alone = copier.copy(320)
    assert alone >= 320 / 16 * 100
    copier.sim.set("outstanding_reads", 2)
    assert copier.copy(320) == pytest.approx(alone / 2, rel=0.15)


# ---- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("response", [SLAVE_ERROR, DECODE_ERROR])
def test_a_read_burst_fails(copier, response):
    copier.sim.set("fault_response", response)
    copier.sim.set("fault_read_burst", 3, port=1)
    copier.start(160)
    copier.finish()
    beats = copier.read("PASSES_DONE")
    assert 1 <= beats <= 16  # of one burst, and of none after it
    source, target, count = copier.source(1), copier.target(1), 160 * 32
    differing = (copier.sim.memory[source:source + count] != copier.sim.memory[target:target + count]).reshape(160, 32)
    assert differing.any(axis=1).sum() == beats, "a failed beat carries no data"
    copier.copy(160)
    assert copier.read("PASSES_DONE") == beats


def test_a_write_burst_fails_and_is_not_written(copier):
    copier.sim.set("fault_write_burst", 2, port=0)
    before = copier.sim.memory.copy()
    copier.start(64)
    copier.finish()
    assert copier.read("PASSES_DONE") == 1
    target, source = copier.target(0), copier.source(0)
    unwritten = np.flatnonzero((copier.sim.memory[target:target + 64 * 32] != before[source:source + 64 * 32])
                               .reshape(64, 32).any(axis=1))
    assert 1 <= len(unwritten) <= 16 and unwritten[0] >= 1 and np.ptp(unwritten) == len(unwritten) - 1
    written = copier.sim.memory[target:target + 64 * 32].reshape(64, 32)[unwritten]
    assert (written == before[target:target + 64 * 32].reshape(64, 32)[unwritten]).all()
    copier.copy(64)


def test_addresses_beyond_the_memory_answer_decode_error(copier):
    before = copier.sim.memory.copy()
    for name, base in (("TABLE_BASE", SIZE - 32), ("KV_BASE", 0), ("TABLE_BASE", 0), ("KV_BASE", (1 << 39) + 64)):
        for port in range(2):
            copier.write(name, base & 0xFFFFFFFF, 2 * port)
            copier.write(name, base >> 32, 2 * port + 1)
        if name == "TABLE_BASE":
            continue
        copier.write("PASS_ADDRESS_LOW", 16)
        copier.write("PASS_ADDRESS_HIGH", 0)
        copier.finish()
    assert copier.sim.get("decode_errors") > 0 and copier.read("PASSES_DONE") > 0
    assert (copier.sim.memory[16 * 32:] == before[16 * 32:]).all(), "nothing is written where no memory is"


@pytest.mark.parametrize("how", [{"hang": 1}, {"hang_after_beats": 20}])
def test_a_port_that_stops_answering(copier, how):
    for name, value in how.items():
        copier.sim.set(name, value, port=1)
    copier.start(100)
    assert copier.sim.run(5000, until_interrupt=True) == 5000
    assert copier.sim.get("read_beats", 1) + copier.sim.get("write_beats", 1) <= how.get("hang_after_beats", 0)
    assert copier.read("STATUS") & 1
    assert copier.sim.get("hang", 1) == 1
    copier.sim.set("hang", 0)
    copier.finish()
    copier.copy(100)


def test_reset_forgets_what_was_owed(copier):
    copier.sim.set("hang_after_beats", 20)
    copier.start(100)
    copier.sim.run(500)
    copier.sim.set("hang", 0)
    copier.sim.reset()
    assert copier.sim.get("reads_open") == copier.sim.get("writes_open") == copier.read("STATUS") == 0
    copier.write("INTERRUPT_ENABLE", 3)
    copier.copy(100)
    assert copier.sim.violation == ""


def test_a_corrupted_byte_is_corrupt_for_its_port_only(copier):
    address = copier.source(0) + 1234
    copier.sim.set("corrupt_address", address, port=0)
    copier.sim.set("corrupt_mask", 0x41, port=0)
    kept = int(copier.sim.memory[address])
    copier.start(100)
    copier.finish()
    assert copier.sim.memory[address] == kept
    assert copier.sim.memory[copier.target(0) + 1234] == kept ^ 0x41
    copier.sim.set("corrupt_mask", 0, port=0)
    copier.copy(100)


# ---- rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defect, message", [
    ("ar_drops", "ARVALID fell before it was taken"),
    ("ar_wraps", "is not INCR"),
    ("ar_id", "has an ID"),
    ("ar_narrow", "is not of the port's full width"),
    ("ar_unaligned", "doesn't start at a multiple of the port's width"),
    ("ar_long", "is longer than the design's burst_beats"),
    ("ar_crosses_page", "crosses a 4096-byte boundary"),
    ("r_waits", "asked for without room"),
    ("aw_moves", "AW changed before it was taken"),
    ("w_changes", "W changed before it was taken"),
    ("w_last_missing", "the last beat of a write burst has no WLAST"),
    ("w_drops", "WVALID fell before it was taken"),
])
def test_a_broken_rule_is_seen(copier, defect, message):
    copier.stall(500_000, seed=3)
    copier.write("WATCHDOG_LIMIT", DEFECTS.index(defect))
    copier.start(200)
    copier.sim.run(3000, until_interrupt=True)
    assert copier.sim.violation.startswith("port 0, cycle ") and message in copier.sim.violation
    assert copier.sim.get("violations", 0) > 0 and copier.sim.get("violations", 1) == 0


def test_every_defect_has_its_rule():
    tested = {mark.args[1][i][0] for mark in test_a_broken_rule_is_seen.pytestmark for i in range(len(mark.args[1]))}
    assert tested == set(DEFECTS) - {"none"}


# ---- interface ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, value, port", [
    ("latency", 3, 0), ("read_latency_cycles", 0, 0), ("rate_beats_per_million_cycles", 1_000_001, 0),
    ("outstanding_reads", 65, 0), ("fault_response", 1, 0), ("corrupt_mask", 256, 0), ("hang", 1, 2), ("hang", 1, -2),
])
def test_refused_settings(copier, name, value, port):
    with pytest.raises(ValueError, match="refuses"):
        copier.sim.set(name, value, port)


def test_settings_and_counters_are_read_back(copier):
    copier.sim.set("read_latency_cycles", 17)
    copier.sim.set("read_latency_cycles", 18, port=1)
    assert [copier.sim.get("read_latency_cycles", port) for port in (0, 1)] == [17, 18]
    for name, port in (("read_latency_cycles", -1), ("reads", 0), ("read_beats", 2)):
        with pytest.raises(ValueError, match="has no"):
            copier.sim.get(name, port)


def test_simulations_are_independent(copier):
    other = Copier(copier.params, seed=9)
    other.sim.set("hang", 1)
    other.start(50)
    other.sim.run(100)
    copier.copy(50)
    assert other.sim.get("read_beats") == 0 and (other.sim.memory != copier.sim.memory).any()
    other.sim.close()


def test_memory_that_is_not_touched_costs_nothing():
    sim = SimulatorLibrary(copy_machine_library(DESIGNS["two ports of 32"]), 1 << 36)
    assert sim.memory[-1] == 0
    sim.memory[-1] = 7
    sim.close()
    with pytest.raises(MemoryError, match="simulated memory"):
        SimulatorLibrary(copy_machine_library(DESIGNS["two ports of 32"]), 1 << 60)


def test_registers_and_cycles(copier):
    start = copier.sim.cycles
    assert copier.sim.run(123) == 123 and copier.sim.cycles == start + 123
    assert copier.sim.run(0) == 0
    copier.write("KV_BASE", 0x12345678, 2)
    assert copier.read("KV_BASE", 2) == 0x12345678
    assert copier.sim.read_register(0xFFC) == 0
