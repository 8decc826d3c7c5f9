"""One generated design runs models of many shapes: RTL equals golden, in random passes and past 1,024 positions."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hls_py.boards import load_board
from host.accelerator import Accelerator, Group, Row
from host.sequences import SequencePool, logits_of
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.end_to_end.test_demo_model import assert_equal
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.machines import check_rules, golden_machine, simulated_machine
from sim_tests.harness.models import TinyModel

MODELS = {
    "grouped_relu2_untied": TinyModel(hidden=72, layers=2, heads=6, kv_heads=2, head_dim=20, ffn=200, vocabulary=133,
                                      activation="relu2", tied=False),
    "one_kv_head_96": TinyModel(hidden=96, layers=1, heads=3, kv_heads=1, head_dim=96, ffn=130, seed=2),
    "no_sub_norms_100": TinyModel(hidden=200, layers=1, heads=2, kv_heads=2, head_dim=100, ffn=310, sub_norms=False,
                                  seed=3),
    "narrow": TinyModel(hidden=20, layers=3, heads=1, kv_heads=1, head_dim=18, ffn=12, vocabulary=5, seed=4),
}


def machines(model: TinyModel, folder) -> tuple[Accelerator, Accelerator]:
    """(RTL, golden) of the demo design with ``model``."""
    board = load_board()
    model.write(folder / "model")
    return (simulated_machine(folder / "model", board, folder / "rtl"),
            golden_machine(folder / "model", board.params, folder / "golden", 64 << 20))


def random_passes(machine: Accelerator, texts: list[list[int]], seed: int) -> np.ndarray:
    """Logits of every row while ``texts`` are fed in random passes; the same passes for the same seed."""
    rng = random.Random(seed)
    pool = SequencePool(machine)
    sequences = [pool.open() for _ in texts]
    out = []
    while live := [n for n, s in enumerate(sequences) if s.length < len(texts[n])]:
        rng.shuffle(live)
        room, groups = rng.randint(1, machine.max_rows), []
        for n in live:
            count = min(rng.randint(1, 4), room, len(texts[n]) - sequences[n].length)
            if count:
                groups.append((n, count))
                room -= count
        inputs = []
        for n, count in groups:
            s = sequences[n]
            pool.reserve(s, count)
            rows = [Row(t, RowFlag.LOGITS) for t in texts[n][s.length:s.length + count]]
            inputs.append(Group(s.slot, s.length, rows, s.blocks))
        out.append(logits_of(machine.run(inputs).rows))
        for n, count in groups:
            sequences[n].length += count
    return np.concatenate(out)


@pytest.mark.parametrize("name", list(MODELS))
def test_random_passes(name: str, tmp_path):
    model = MODELS[name]
    rtl, golden = machines(model, tmp_path)
    rng = np.random.default_rng(bench_seed())
    texts = [rng.integers(0, model.vocabulary, length).tolist() for length in (30, 17, 9)]
    assert_equal(random_passes(rtl, texts, bench_seed()), random_passes(golden, texts, bench_seed()))
    check_rules(rtl)


def test_past_1024_positions(tmp_path):
    model = TinyModel(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=40, max_positions=2048)
    rtl, golden = machines(model, tmp_path)
    tokens = np.random.default_rng(3).integers(0, model.vocabulary, 1100).tolist()
    found = []
    for machine in (rtl, golden):
        pool = SequencePool(machine)
        sequence = pool.open()
        pool.feed(sequence, tokens[:1020])
        found.append(logits_of(pool.feed(sequence, tokens[1020:1040], every=RowFlag.LOGITS)))
    assert_equal(*found)
