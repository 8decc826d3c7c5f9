"""One generated design runs models of many shapes: RTL equals golden, in random passes and past 1,024 positions."""

from __future__ import annotations

import numpy as np
import pytest

from host.sequences import SequencePool, logits_of
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.machines import both_machines, check_rules
from sim_tests.harness.models import TinyModel
from sim_tests.harness.passes import assert_equal, random_passes

MODELS = {
    "grouped_relu2_untied": TinyModel(hidden=72, layers=2, heads=6, kv_heads=2, head_dim=20, ffn=200, vocabulary=133,
                                      activation="relu2", tied=False),
    "one_kv_head_96": TinyModel(hidden=96, layers=1, heads=3, kv_heads=1, head_dim=96, ffn=130, seed=2),
    "no_sub_norms_100": TinyModel(hidden=200, layers=1, heads=2, kv_heads=2, head_dim=100, ffn=310, sub_norms=False,
                                  seed=3),
    "no_sub_norms_256": TinyModel(hidden=136, layers=2, heads=3, kv_heads=1, head_dim=256, ffn=300, sub_norms=False,
                                  tied=False, seed=5),
    "narrow": TinyModel(hidden=20, layers=3, heads=1, kv_heads=1, head_dim=18, ffn=12, vocabulary=5, seed=4),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_random_passes(name: str, tmp_path):
    model = MODELS[name]
    rtl, golden = both_machines(model, tmp_path)
    rng = np.random.default_rng(bench_seed())
    texts = [rng.integers(0, model.vocabulary, length).tolist() for length in (30, 17, 9)]
    found = []
    for machine in (rtl, golden):
        pool = SequencePool(machine)
        found.append(random_passes(machine, texts, bench_seed(), pool, [pool.open() for _ in texts]))
    assert_equal(*found)
    check_rules(rtl)


def test_past_1024_positions(tmp_path):
    model = TinyModel(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=40, max_positions=2048)
    rtl, golden = both_machines(model, tmp_path)
    tokens = np.random.default_rng(3).integers(0, model.vocabulary, 1100).tolist()
    found = []
    for machine in (rtl, golden):
        pool = SequencePool(machine)
        sequence = pool.open()
        pool.feed(sequence, tokens[:1020])
        found.append(logits_of(pool.feed(sequence, tokens[1020:1040], every=RowFlag.LOGITS)))
    assert_equal(*found)
