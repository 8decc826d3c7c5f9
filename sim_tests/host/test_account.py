"""``tellme account``: its cycles are those that the hardware counts, and its causes add up."""

import numpy as np
import pytest

from hls_py.boards import load_board
from host.accelerator import Accelerator, Group, Row
from host.account_picture import draw
from host.commands.account import PassShape, measure
from host.cycle_account import CycleAccount
from host.devices.verilator import PortBit, VerilatorDevice
from host.errors import HostError
from host.sequences import SequencePool
from rtl.contract import register_map
from rtl.contract.activity import Activity
from rtl.contract.register_map import Counter
from sim_tests.harness.machines import check_rules, simulated_machine
from sim_tests.harness.models import TinyModel

MODEL = TinyModel(hidden=96, layers=2, heads=4, kv_heads=2, head_dim=32, ffn=200)
SHAPES = [PassShape("prompt", 1, 4, 0), PassShape("prompt", 1, 3, 130), PassShape("decode", 3, 1, 140)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Accelerator:
    folder = tmp_path_factory.mktemp("account")
    MODEL.write(folder / "model")
    return simulated_machine(folder / "model", load_board(), folder / "image")


@pytest.fixture(scope="module")
def accounts(machine) -> list[CycleAccount]:
    return [measure(machine, shape) for shape in SHAPES]


def test_states_exclude_each_other_and_causes_add_up(accounts):
    for account in accounts:
        for unit in [*account.units, *account.ports, account.causes]:
            assert np.sum([state.cycles for state in unit.states], axis=0).max() <= 1, unit.name
        for unit in [*account.ports, account.causes]:
            assert sum(state.count for state in unit.states) == account.cycles
        works = {unit.name for unit in account.units if any(s.works and s.count for s in unit.states)}
        assert works == {"weight stream", "engine", "gather", "drain", "quantise", "attention", "KV writer", "head"}


def test_counts_are_the_hardwares(machine):
    device = machine.device
    assert isinstance(device, VerilatorDevice)
    device.write_register(register_map.address("COUNTERS_CLEAR"), 1)
    beats = {name: device.get(-1, name) for name in ("read_beats", "write_beats")}
    device.begin_trace(1 << 20)
    pool = SequencePool(machine)
    pool.feed(pool.open(), [1, 2, 3])
    moved = {name: device.get(-1, name) - count for name, count in beats.items()}
    activity, ports = device.end_trace()
    counted, traced = machine.counters(), CycleAccount(activity, ports).counters()
    assert counted == traced
    assert counted["ENGINE_STEPS"] and counted["KV_WRITER_BUSY"] and counted["BUSY_CYCLES"] > 1000
    for name, bit in (("read_beats", PortBit.READ_BEAT), ("write_beats", PortBit.WRITE_BEAT)):
        assert moved[name] == np.count_nonzero(ports >> bit & 1) > 0


def test_random_bytes_for_a_past_take_its_cycles(machine, accounts):
    pool = SequencePool(machine)
    sequences = [pool.open() for _ in range(SHAPES[2].sequences)]
    for sequence in sequences:
        pool.feed(sequence, np.random.default_rng(5).integers(0, MODEL.vocabulary, SHAPES[2].past).tolist())
        pool.reserve(sequence, 1)
    before = machine.counters()
    machine.run([Group(s.slot, s.length, [Row(1)], s.blocks) for s in sequences])
    cycles = machine.counters()["BUSY_CYCLES"] - before["BUSY_CYCLES"]
    without_head = measure(machine, SHAPES[2], head=False)
    assert cycles == pytest.approx(without_head.cycles, abs=60)  # where refreshes fall differs
    check_rules(machine)


def test_a_pass_takes_what_its_past_costs(accounts):
    empty, behind = accounts[0].counters(), accounts[1].counters()
    assert empty["KV_READ_BEATS"] == 0 < behind["KV_READ_BEATS"]
    assert empty["ENGINE_STEPS"] == behind["ENGINE_STEPS"]
    assert accounts[2].bit(Activity.ATTENTION_WORD).sum() == 3 * 2 * 4 * 32 / 4  # rows, layers, heads, words


def test_picture(accounts, tmp_path):
    draw(tmp_path / "out.png", [(str(shape), account) for shape, account in zip(SHAPES, accounts)])
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(HostError, match="can't be drawn"):
        draw(tmp_path / "out.nothing", [("one", accounts[0])])


def test_no_pass_in_a_trace():
    with pytest.raises(ValueError, match="no pass"):
        CycleAccount(np.zeros(10, np.uint64), np.zeros((10, 2), np.uint8))
    one = np.zeros(10, np.uint64)
    one[3] = 1 << Counter.BUSY_CYCLES
    assert CycleAccount(one, np.zeros((10, 2), np.uint8)).cycles == 1
