"""Faults from outside stop the pass with a cause that can be read, and the next pass is right without a reset."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from host.accelerator import Accelerator, Group, Row
from host.devices.verilator import VerilatorDevice
from host.errors import PassError
from host.sequences import SequencePool, logits_of
from rtl.contract import register_map
from rtl.contract.pass_descriptor import RowFlag
from rtl.contract.register_map import Control, ErrorCause, Status
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.machines import both_machines
from sim_tests.harness.models import TinyModel
from sim_tests.harness.passes import assert_equal

MODEL = TinyModel(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=160)
WATCHDOG_CYCLES = 3000
LATEST_CYCLES = WATCHDOG_CYCLES + 1000
TOKENS = list(range(4, 10))


class Stage:
    """RTL with a sequence of six tokens behind it, and what a seventh gives."""

    def __init__(self, rtl: Accelerator, golden: Accelerator):
        self.rtl = rtl
        device = rtl.device
        assert isinstance(device, VerilatorDevice)
        self.device = device
        device.write_register(register_map.address("WATCHDOG_LIMIT"), WATCHDOG_CYCLES)
        self.expected = self.run(golden)

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
        pool.reserve(sequence, 4)
        group = Group(sequence.slot, 0, [Row(t, RowFlag.LOGITS) for t in TOKENS[:4]], sequence.blocks)
        self.rtl.start([group])

    def stopped(self, grace_cycles: int = 0) -> tuple[ErrorCause, int]:
        """Wait for the error, which must show in time; for ``grace_cycles`` what is on chip may keep units busy."""
        for _ in range((LATEST_CYCLES + grace_cycles) // 50):
            if Status(self.device.read_register(register_map.address("STATUS"))) & Status.ERROR:
                break
            self.device.run_cycles(50)
        else:
            raise AssertionError("no cause in time")
        return (ErrorCause(self.device.read_register(register_map.address("ERROR_CAUSE"))),
                self.device.read_register(register_map.address("ERROR_INFO")))

    def recover(self) -> None:
        self.device.write_register(register_map.address("CONTROL"), int(Control.ABORT))
        self.device.write_register(register_map.address("CONTROL"), int(Control.ACKNOWLEDGE))
        assert_equal(self.run(self.rtl), self.expected)


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Stage:
    return Stage(*both_machines(MODEL, tmp_path_factory.mktemp("faults")))


def abort(stage: Stage) -> set[ErrorCause]:
    stage.device.write_register(register_map.address("CONTROL"), int(Control.ABORT))
    return {ErrorCause.ABORTED}


def write_while_busy(stage: Stage) -> set[ErrorCause]:
    stage.device.write_register(register_map.address("KV_BASE"), 64)
    return {ErrorCause.REGISTER_WRITE_WHILE_BUSY}


def read_error(stage: Stage) -> set[ErrorCause]:
    stage.device.set(1, "fault_read_burst", 1)
    return {ErrorCause.READ_ERROR}


def write_error(stage: Stage) -> set[ErrorCause]:
    stage.device.set(1, "fault_write_burst", 1)
    return {ErrorCause.WRITE_ERROR}


def silent_port(stage: Stage) -> set[ErrorCause]:
    stage.device.set(1, "hang", 1)
    return {ErrorCause.WATCHDOG}


FAULTS: list[Callable[[Stage], set[ErrorCause]]] = [abort, write_while_busy, read_error, write_error, silent_port]


@pytest.mark.parametrize("round_", range(6))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_fault_at_a_random_cycle(stage: Stage, fault: Callable[[Stage], set[ErrorCause]], round_: int):
    rng = random.Random(f"{bench_seed()} {fault.__name__} {round_}")
    cycles = stage.pass_cycles()
    stage.start()
    # In the first half, so that the fault's port is still used behind it.
    stage.device.run_cycles(rng.randrange(cycles // 2))
    causes = fault(stage)
    cause, _ = stage.stopped(cycles if fault is silent_port else 0)
    stage.device.set(1, "hang", 0)
    stage.device.set(-1, "fault_read_burst", 0)
    stage.device.set(-1, "fault_write_burst", 0)
    assert cause in causes
    stage.recover()


@pytest.mark.parametrize("round_", range(4))
def test_corrupt_byte_of_the_stream(stage: Stage, round_: int):
    """Any byte of a record fails its CRC, its magic, or its length."""
    rng = random.Random(f"{bench_seed()} {round_}")
    port = rng.randrange(stage.rtl.params.ports)
    region = stage.rtl.map.stream
    address = region.bases[port] + rng.randrange(stage.rtl.manifest.layers_extent.count * stage.rtl.params.port_bytes)
    good = stage.device.read_memory(address, 1)
    stage.device.write_memory(address, good ^ np.uint8(1 << rng.randrange(8)))
    # A pass that was prefetched before would still be right: the second one reads what lies there now.
    try:
        with pytest.raises(PassError) as caught:
            for _ in range(3):
                stage.run(stage.rtl)
    finally:
        stage.device.write_memory(address, good)
    assert caught.value.cause in ("RECORD_CRC", "RECORD_MAGIC", "RECORD_FRAMING", "WATCHDOG")
    stage.run(stage.rtl)
    assert_equal(stage.run(stage.rtl), stage.expected)
