"""Faults from outside stop the pass with a cause that can be read, and the next pass is right without a reset.

A fault comes at a random cycle, on a random port, in a random word; 30 here in `make test`, 300 in `make test-full`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from host.accelerator import Accelerator, Group, Row
from host.devices.verilator import VerilatorDevice
from host.errors import PassError
from host.sequences import SequencePool, logits_of
from rtl.contract import register_map
from rtl.contract.bitfields import WordLayout
from rtl.contract.command_words import COMMAND_BYTES, Opcode
from rtl.contract.pass_descriptor import GROUP_ENTRY, PASS_HEADER, ROW_ENTRY, RowFlag
from rtl.contract.register_map import Control, ErrorCause, Status
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.machines import both_machines
from sim_tests.harness.models import TinyModel
from sim_tests.harness.passes import assert_equal

MODEL = TinyModel(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=160)
WATCHDOG_CYCLES = 3000
LATEST_CYCLES = WATCHDOG_CYCLES + 1000
STEP_CYCLES = 50
TOKENS = list(range(4, 10))
ROWS = 4
"""Of the pass that a fault hits."""


class Stage:
    """RTL with a sequence of six tokens behind it, and what a seventh gives."""

    def __init__(self, rtl: Accelerator, golden: Accelerator):
        self.rtl = rtl
        device = rtl.device
        assert isinstance(device, VerilatorDevice)
        self.device = device
        device.write_register(register_map.address("WATCHDOG_LIMIT"), WATCHDOG_CYCLES)
        self.expected = self.run(golden)
        self.cycles = self.pass_cycles()

    def run(self, machine: Accelerator) -> np.ndarray:
        pool = SequencePool(machine)
        return logits_of(pool.feed(pool.open(), TOKENS, every=RowFlag.LOGITS))

    def pass_cycles(self) -> int:
        before = self.device.cycles
        assert_equal(self.run(self.rtl), self.expected)
        return (self.device.cycles - before) // 2  # two passes of up to four rows

    def start(self) -> None:
        """Queue a pass and don't wait."""
        pool = SequencePool(self.rtl)
        sequence = pool.open()
        pool.reserve(sequence, ROWS)
        group = Group(sequence.slot, 0, [Row(t, RowFlag.LOGITS) for t in TOKENS[:ROWS]], sequence.blocks)
        self.rtl.start([group])

    def stopped(self) -> tuple[ErrorCause, int]:
        """Wait for the error, which must show in time."""
        for _ in range(LATEST_CYCLES // STEP_CYCLES):
            if Status(self.device.read_register(register_map.address("STATUS"))) & Status.ERROR:
                break
            self.device.run_cycles(STEP_CYCLES)
        else:
            raise AssertionError(f"no cause {LATEST_CYCLES} cycles behind the fault")
        return (ErrorCause(self.device.read_register(register_map.address("ERROR_CAUSE"))),
                self.device.read_register(register_map.address("ERROR_INFO")))

    def recover(self) -> None:
        self.device.write_register(register_map.address("CONTROL"), int(Control.ABORT))
        self.device.write_register(register_map.address("CONTROL"), int(Control.ACKNOWLEDGE))
        assert_equal(self.run(self.rtl), self.expected)


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Stage:
    return Stage(*both_machines(MODEL, tmp_path_factory.mktemp("faults")))


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what may be read then: causes, and ERROR_INFO from bit ``info_from`` on (None: anything)."""

    causes: set[ErrorCause]
    info: int | None = None
    undo: Callable[[], object] = lambda: None
    info_from: int = 0
    reached_late: bool = False
    """The pass comes to it by and by."""


def damage(stage: Stage, address: int, data: np.ndarray | bytes) -> Callable[[], object]:
    """Write to memory; calling the result puts back what was there."""
    raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    good = stage.device.read_memory(address, len(raw))
    stage.device.write_memory(address, raw)
    return lambda: stage.device.write_memory(address, good)


def damage_field(stage: Stage, layout: WordLayout, offset: int, field: str, value: int) -> Callable[[], object]:
    """Change a field of the entry of ``layout`` that lies ``offset`` bytes into the pass's descriptor."""
    place = layout.fields[field]
    address = stage.rtl.map.scratch[0].descriptor + offset + place.bit // 8
    return damage(stage, address, value.to_bytes(place.width // 8, "little"))


def run_for_a_while(stage: Stage, rng: random.Random) -> None:
    # Within the first half, so that every port is still used behind it.
    stage.device.run_cycles(rng.randrange(stage.cycles // 2))


def abort(stage: Stage, rng: random.Random) -> Fault:
    run_for_a_while(stage, rng)
    stage.device.write_register(register_map.address("CONTROL"), int(Control.ABORT))
    return Fault({ErrorCause.ABORTED})


def register_write(stage: Stage, rng: random.Random) -> Fault:
    run_for_a_while(stage, rng)
    address = register_map.address(rng.choice(["KV_BASE", "TABLE_BASE"]), rng.randrange(2 * stage.rtl.params.ports))
    stage.device.write_register(address, 64)
    return Fault({ErrorCause.REGISTER_WRITE_WHILE_BUSY}, address)


def bad_response(stage: Stage, rng: random.Random, setting: str, cause: ErrorCause) -> Fault:
    run_for_a_while(stage, rng)
    port = rng.randrange(stage.rtl.params.ports)
    stage.device.set(port, "fault_response", rng.choice([2, 3]))
    stage.device.set(port, setting, 1)
    return Fault({cause}, port, lambda: stage.device.set(port, setting, 0))


def read_error(stage: Stage, rng: random.Random) -> Fault:
    return bad_response(stage, rng, "fault_read_burst", ErrorCause.READ_ERROR)


def write_error(stage: Stage, rng: random.Random) -> Fault:
    return bad_response(stage, rng, "fault_write_burst", ErrorCause.WRITE_ERROR)


def silent_port(stage: Stage, rng: random.Random) -> Fault:
    run_for_a_while(stage, rng)
    port = rng.randrange(stage.rtl.params.ports)
    stage.device.set(port, "hang", 1)
    return Fault({ErrorCause.WATCHDOG}, 1 << port, lambda: stage.device.set(port, "hang", 0), info_from=16)


def starved_stream(stage: Stage, rng: random.Random) -> Fault:
    """The extent ends before the program does."""
    beats = rng.randrange(stage.rtl.manifest.layers_extent.count)
    undo = damage(stage, stage.rtl.map.scratch[0].extents, beats.to_bytes(4, "little"))
    return Fault({ErrorCause.WATCHDOG, ErrorCause.RECORD_FRAMING, ErrorCause.RECORD_CRC, ErrorCause.RECORD_MAGIC},
                 undo=undo, reached_late=True)


def bad_command(stage: Stage, rng: random.Random) -> Fault:
    program = stage.rtl.manifest.program_with_head
    number = rng.randrange(program.count)
    opcode = rng.choice([op for op in range(256) if op not in set(Opcode)])
    undo = damage(stage, stage.rtl.map.program + (program.first + number) * COMMAND_BYTES, bytes([opcode]))
    return Fault({ErrorCause.BAD_COMMAND}, number, undo, reached_late=True)


def bad_row(stage: Stage, rng: random.Random) -> Fault:
    """A slot that isn't there, or a row that sees one beyond the pass."""
    number = rng.randrange(ROWS)
    field, value = rng.choice([("slot", 0xFFFF), ("slot", stage.rtl.params.max_slots), ("visible", 1 << ROWS)])
    offset = PASS_HEADER.size_bytes + number * ROW_ENTRY.size_bytes
    return Fault({ErrorCause.BAD_ROW}, number, damage_field(stage, ROW_ENTRY, offset, field, value))


def bad_group(stage: Stage, rng: random.Random) -> Fault:
    field, value = rng.choice([("rows", 0), ("rows", ROWS + 1), ("rows", ROWS - 1), ("first_row", 1), ("blocks", 7),
                               ("past", 5000)])
    offset = PASS_HEADER.size_bytes + ROWS * ROW_ENTRY.size_bytes
    return Fault({ErrorCause.BAD_ROW}, 0x100, damage_field(stage, GROUP_ENTRY, offset, field, value))


def bad_header(stage: Stage, rng: random.Random) -> Fault:
    """No magic, impossible counts, or a program that was compiled for another design."""
    cause, field, value = rng.choice([
        (ErrorCause.BAD_PASS, "magic", 0), (ErrorCause.BAD_PASS, "rows", stage.rtl.params.rows + 1),
        (ErrorCause.BAD_PASS, "rows", 0), (ErrorCause.BAD_PASS, "groups", ROWS + 1),
        (ErrorCause.BAD_PASS, "commands", 0), (ErrorCause.WRONG_DESIGN, "design_id", rng.getrandbits(32))])
    return Fault({cause}, 0, damage_field(stage, PASS_HEADER, 0, field, value))


FAULTS: list[Callable[[Stage, random.Random], Fault]] = [
    abort, register_write, read_error, write_error, silent_port, starved_stream, bad_command, bad_row, bad_group,
    bad_header]


@pytest.mark.parametrize("round_", [*range(3), *(pytest.param(n, marks=pytest.mark.full) for n in range(3, 31))])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_fault(stage: Stage, fault: Callable[[Stage, random.Random], Fault], round_: int):
    rng = random.Random(f"{bench_seed()} {fault.__name__} {round_}")
    stage.start()
    made = fault(stage, rng)
    try:
        if made.reached_late:
            stage.device.run_cycles(stage.cycles)
        cause, info = stage.stopped()
    finally:
        made.undo()
    assert cause in made.causes and made.info in (None, info >> made.info_from), f"{cause!r} with {info:#x}"
    stage.recover()


@pytest.mark.parametrize("round_", [*range(4), *(pytest.param(n, marks=pytest.mark.full) for n in range(4, 20))])
def test_corrupt_byte_of_the_stream(stage: Stage, round_: int):
    """Any byte of a record fails its CRC, its magic, or its length."""
    rng = random.Random(f"{bench_seed()} {round_}")
    port = rng.randrange(stage.rtl.params.ports)
    region = stage.rtl.map.stream
    address = region.bases[port] + rng.randrange(stage.rtl.manifest.layers_extent.count * stage.rtl.params.port_bytes)
    undo = damage(stage, address, stage.device.read_memory(address, 1) ^ np.uint8(1 << rng.randrange(8)))
    # A pass that was prefetched before would still be right: the second one reads what lies there now.
    try:
        with pytest.raises(PassError) as caught:
            for _ in range(3):
                stage.run(stage.rtl)
    finally:
        undo()
    assert caught.value.cause in ("RECORD_CRC", "RECORD_MAGIC", "RECORD_FRAMING", "WATCHDOG")
    stage.run(stage.rtl)
    assert_equal(stage.run(stage.rtl), stage.expected)
