"""Random small models in random passes: RTL equals golden on the demo design, whatever the dimensions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from host.accelerator import Accelerator
from host.sequences import SequencePool
from sim_tests.harness.machines import both_machines, check_rules
from sim_tests.harness.models import TinyModel
from sim_tests.harness.passes import assert_equal, random_passes

HEAD_DIMS = (16, 18, 20, 32, 50, 64, 80, 96, 100, 128, 200, 256)
MAX_QUERY_WIDTH = 520
PARTS = 4


@st.composite
def models(draw: st.DrawFn) -> TinyModel:
    head_dim = draw(st.sampled_from(HEAD_DIMS))
    kv_heads = draw(st.integers(1, max(1, min(3, MAX_QUERY_WIDTH // head_dim))))
    queries_per_kv = draw(st.integers(1, max(1, min(4, MAX_QUERY_WIDTH // (head_dim * kv_heads)))))
    return TinyModel(
        hidden=draw(st.integers(64, 320)), layers=draw(st.integers(1, 3)), heads=kv_heads * queries_per_kv,
        kv_heads=kv_heads, head_dim=head_dim, ffn=draw(st.integers(24, 500)), vocabulary=draw(st.integers(2, 150)),
        activation=draw(st.sampled_from(["silu", "relu2"])), sub_norms=draw(st.booleans()), tied=draw(st.booleans()),
        seed=draw(st.integers(0, 999)))


@st.composite
def lengths(draw: st.DrawFn) -> list[int]:
    """Of one to three texts; one in eight texts is past 300."""
    long = st.integers(301, 330)
    usual = st.integers(24, 160)
    return draw(st.lists(st.one_of(usual, usual, usual, usual, usual, usual, usual, long), min_size=1, max_size=3))


def check(model: TinyModel, texts: list[int], cuts: int, folder: Path) -> None:
    machines = both_machines(model, folder)
    tokens = np.random.default_rng(model.seed)
    written = [tokens.integers(0, model.vocabulary, length).tolist() for length in texts]

    def run(machine: Accelerator) -> np.ndarray:
        """Random passes at the end; whole ones before, which are quicker."""
        pool = SequencePool(machine)
        sequences = [pool.open() for _ in written]
        for sequence, text in zip(sequences, written):
            pool.feed(sequence, text[:max(0, len(text) - 20)])
        return random_passes(machine, written, cuts, pool, sequences)

    assert_equal(run(machines[0]), run(machines[1]))
    check_rules(machines[0])


def property_of(part: int, examples: int):
    @seed(part)
    @settings(max_examples=examples, deadline=None, database=None, print_blob=True,
              suppress_health_check=[HealthCheck.too_slow])
    @given(models(), lengths(), st.integers(0, 999))
    def holds(model: TinyModel, texts: list[int], cuts: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(model, texts, cuts, Path(folder))
    return holds


@pytest.mark.parametrize("part", range(PARTS))
def test_rtl_equals_golden(part: int):
    property_of(part, examples=5)()


@pytest.mark.full
@pytest.mark.parametrize("part", range(PARTS, 2 * PARTS))
def test_rtl_equals_golden_often(part: int):
    property_of(part, examples=50)()
