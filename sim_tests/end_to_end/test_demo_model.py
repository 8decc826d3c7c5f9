"""The demo model on the demo design: RTL equals golden bit for bit, whatever memory does and however passes are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hls_py.boards import load_board
from host.accelerator import Accelerator, Group, Row
from host.commands.common import DEMO_MODEL
from host.devices.verilator import VerilatorDevice
from host.sequences import SequencePool, logits_of
from host.text import Text
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.machines import check_rules, golden_machine, simulated_machine
from sim_tests.harness.passes import assert_equal

PROMPT = ("It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want "
          "of a wife. However little known the feelings or views of such a man may be on his first entering")
GENERATED = 128
STALLS = dict(stall_ar_per_million=300_000, stall_r_per_million=250_000, stall_aw_per_million=300_000,
              stall_w_per_million=300_000, stall_b_per_million=300_000)


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> tuple[Accelerator, Accelerator]:
    """(RTL, golden) with the demo model on the demo design."""
    board = load_board()
    folder = tmp_path_factory.mktemp("demo")
    return (simulated_machine(DEMO_MODEL, board, folder / "rtl"),
            golden_machine(DEMO_MODEL, board.params, folder / "golden", 64 << 20))


def prompt_tokens(count: int) -> list[int]:
    tokens = Text(DEMO_MODEL).encode(PROMPT)
    assert len(tokens) >= count
    return tokens[:count]


def generate(machine: Accelerator, prompt: list[int], count: int) -> tuple[np.ndarray, list[int]]:
    """Greedy: logits of every prompt position and every step, and the tokens."""
    pool = SequencePool(machine)
    sequence = pool.open()
    rows = pool.feed(sequence, prompt, every=RowFlag.LOGITS | RowFlag.ARGMAX)
    tokens = []
    for _ in range(count):
        token = rows[-1].token
        assert token is not None
        tokens.append(token)
        rows += pool.feed(sequence, [token], every=RowFlag.LOGITS | RowFlag.ARGMAX)
    return logits_of(rows), tokens


class Runs:
    """61 or 64 prompt tokens and GENERATED ones on a machine, each computed once, with the cycles it took."""

    def __init__(self, machine: Accelerator):
        self.machine = machine
        self._runs: dict[int, tuple[np.ndarray, list[int]]] = {}
        self.cycles: dict[int, int] = {}

    def __getitem__(self, count: int) -> tuple[np.ndarray, list[int]]:
        """Logits of every position, and the tokens."""
        if count not in self._runs:
            device = self.machine.device
            before = getattr(device, "cycles", 0)  # golden has none
            self._runs[count] = generate(self.machine, prompt_tokens(count), GENERATED)
            self.cycles[count] = getattr(device, "cycles", 0) - before
        return self._runs[count]


@pytest.fixture(scope="module")
def golden_runs(machines) -> Runs:
    return Runs(machines[1])


@pytest.fixture(scope="module")
def quiet_runs(machines) -> Runs:
    """On the RTL, while the memory keeps to its model."""
    return Runs(machines[0])


@pytest.mark.parametrize("count", [61, 64])
def test_every_logit(machines, golden_runs, quiet_runs, count: int):
    logits, tokens = quiet_runs[count]
    assert tokens == golden_runs[count][1]
    assert_equal(logits, golden_runs[count][0])
    check_rules(machines[0])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_memory_changes_cycles_only(machines, golden_runs, quiet_runs, seed: int):
    machine = machines[0]
    device = machine.device
    assert isinstance(device, VerilatorDevice)
    assert quiet_runs[61]
    for name, value in {**STALLS, "stall_seed": seed}.items():
        device.set(-1, name, value)
    before = device.cycles
    try:
        assert_equal(generate(machine, prompt_tokens(61), GENERATED)[0], golden_runs[61][0])
    finally:
        for name in STALLS:
            device.set(-1, name, 0)
    assert device.cycles - before > quiet_runs.cycles[61]
    check_rules(machine)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_rows_per_pass(machines, golden_runs, rows: int):
    pool = SequencePool(machines[0])
    results = pool.feed(pool.open(), prompt_tokens(61), every=RowFlag.LOGITS, rows_per_pass=rows)
    assert_equal(logits_of(results), golden_runs[61][0][:61])


def test_two_sequences_in_one_pass(machines, golden_runs):
    """Prompt rows of one sequence beside decode rows of another, both inside one tile."""
    pool = SequencePool(machines[0])
    first, second = pool.open(), pool.open()
    text = prompt_tokens(61)
    pool.feed(first, text[:40])
    for start in range(0, 9, 3):
        pool.reserve(first, 1)
        pool.reserve(second, 3)
        results = machines[0].run([
            Group(first.slot, first.length, [Row(text[first.length], RowFlag.LOGITS)], first.blocks),
            Group(second.slot, second.length, [Row(t, RowFlag.LOGITS) for t in text[start:start + 3]], second.blocks),
        ]).rows
        first.length += 1
        second.length += 3
        expected = np.concatenate([golden_runs[61][0][first.length - 1:first.length],
                                   golden_runs[61][0][start:start + 3]])
        assert_equal(logits_of(results), expected)


def test_token_from_slot_and_top_k(machines, golden_runs):
    """A row's token may be the argmax of its slot's last logits row; top-k holds the best logits."""
    pool = SequencePool(machines[0])
    sequence = pool.open()
    logits, tokens = golden_runs[61]
    pool.feed(sequence, prompt_tokens(61), last=RowFlag.ARGMAX)
    for step in range(3):
        pool.reserve(sequence, 1)
        row = machines[0].run([Group(sequence.slot, sequence.length,
                                     [Row(None, RowFlag.ARGMAX | RowFlag.TOP_K)], sequence.blocks)]).rows[0]
        sequence.length += 1
        assert row.token == tokens[step + 1]
        assert row.top_tokens is not None and row.top_logits is not None
        order = np.argsort(-logits[61 + step], kind="stable")[:len(row.top_tokens)]
        np.testing.assert_array_equal(row.top_tokens, order)
        np.testing.assert_array_equal(row.top_logits, logits[61 + step][order])


def test_image_of_another_design_is_refused(machines, tmp_path: Path):
    from host.errors import HostError
    from sim_tests.harness.machines import small_design
    from sim_tests.harness.models import TinyModel
    other = golden_machine(TinyModel().write(tmp_path / "model"), small_design(), tmp_path / "image")
    with pytest.raises(HostError, match="packed for design"):
        Accelerator(machines[0].device, tmp_path / "image")
    assert other.max_rows >= 1
