"""Long contexts and conversations on the demo design: RTL equals golden to the last position."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hls_py.boards import load_board
from host.accelerator import Accelerator
from host.commands.common import DEMO_MODEL
from host.sequences import SequencePool, logits_of
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.machines import both_machines, check_rules, golden_machine, simulated_machine
from sim_tests.harness.models import TinyModel
from sim_tests.harness.passes import assert_equal

TURNS = ((14, 9), (5, 17), (23, 6))
"""Tokens that each turn of a conversation brings and gets."""


def conversation(machine: Accelerator, seed: int) -> np.ndarray:
    """Logits of every row of several turns; before each answer a draft is run and rejected, in part or whole."""
    rng = random.Random(seed)
    vocabulary = machine.manifest.vocabulary
    pool = SequencePool(machine)
    sequence = pool.open()
    rows = []
    for asked, answered in TURNS:
        results = pool.feed(sequence, [rng.randrange(vocabulary) for _ in range(asked)],
                            every=RowFlag.LOGITS | RowFlag.ARGMAX)
        rows += results
        while answered > 0:
            token = results[-1].token
            assert token is not None
            draft = [token] + [rng.randrange(vocabulary) for _ in range(machine.max_rows - 1)]
            kept = rng.randint(1, min(answered, len(draft)))
            length = sequence.length
            results = pool.feed(sequence, draft, every=RowFlag.LOGITS | RowFlag.ARGMAX)[:kept]
            pool.rewind(sequence, length + kept)
            rows += results
            answered -= kept
    return logits_of(rows)


def test_conversation_with_rejected_drafts(tmp_path):
    rtl, golden = both_machines(TinyModel(layers=2, seed=6), tmp_path)
    assert_equal(conversation(rtl, 1), conversation(golden, 1))
    check_rules(rtl)


@pytest.mark.full
def test_conversation_of_the_demo_model(tmp_path):
    board = load_board()
    rtl = simulated_machine(DEMO_MODEL, board, tmp_path / "rtl")
    golden = golden_machine(DEMO_MODEL, board.params, tmp_path / "golden", 64 << 20)
    assert_equal(conversation(rtl, 2), conversation(golden, 2))


@pytest.mark.full
def test_1500_positions(tmp_path):
    """Every position's logits, prompt and decoded: the last 100 are fed a token at a time."""
    rtl, golden = both_machines(TinyModel(layers=2, max_positions=1536, seed=7), tmp_path)
    tokens = np.random.default_rng(8).integers(0, rtl.manifest.vocabulary, 1500).tolist()

    def run(machine: Accelerator) -> np.ndarray:
        pool = SequencePool(machine)
        sequence = pool.open()
        rows = pool.feed(sequence, tokens[:1400], every=RowFlag.LOGITS)
        for token in tokens[1400:]:
            rows += pool.feed(sequence, [token], every=RowFlag.LOGITS)
        return logits_of(rows)

    assert_equal(run(rtl), run(golden))
    check_rules(rtl)
