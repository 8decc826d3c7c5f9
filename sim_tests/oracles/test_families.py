"""Models in the shapes of the families against transformers: whole models by their logits.

Every int8 quantisation of activations turns a difference far below its step into flipped codes, and random weights
amplify these more than trained ones: the logits' mean error is a coarse measure; a wrong computation gives errors of
100 %. Beside golden's error stands transformers' own, in float64 and with its attention moved by 1e-4 of its
deviation. Products and kernels one by one: test_blocks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hls_py.golden.machine.precision import Precision
from hls_py.oracles.agreement import compare
from hls_py.oracles.transformers_model import TransformersModel
from sim_tests.harness.checkpoints import FAMILIES, Family
from sim_tests.oracles.families import GoldenModel, PeakedHead, noisy_attention, real_dimensions

pytestmark = pytest.mark.oracle

STORAGES = {
    "llama3-scaled-rope": replace(FAMILIES["llama3-8b"], llama3=True),
    "bitnet-masters-online": replace(FAMILIES["bitnet-2b"], storage="masters"),
    "ternary-floats": replace(FAMILIES["falcon-e-1b"], storage="ternary"),
    "legacy-bitnet": replace(FAMILIES["bitnet-2b"], linear_class="bitlinear", tied=False),
    "outliers-everywhere": replace(FAMILIES["bitnet-2b"], outliers_everywhere=True),
}
"""Storages that no family of FAMILIES has, and outliers that none is known to have."""
NOISE = 1e-4


def check(family: Family, folder: Path, attention_bound: float = 0.04, sequences: int = 2, length: int = 48) -> None:
    """Golden as the hardware; with KV cache and head in float; with everything in float.

    The KV cache in float means attention's products in float, the queries too; with int8 queries is only printed.
    With everything in float only the order of sums differs, by less than NOISE.
    """
    model = PeakedHead(family).write_huggingface(folder / "model")
    tokens = np.random.default_rng(5).integers(0, family.vocabulary, (sequences, length))
    oracle = TransformersModel(model)
    theirs = oracle.logits(tokens)
    with noisy_attention(oracle, NOISE):
        moved = compare(oracle.logits(tokens), theirs, tokens).mean_logit_error
    floor = compare(oracle.in_float64().logits(tokens).astype(np.float32), theirs, tokens).mean_logit_error
    del oracle
    golden = GoldenModel(model, folder / "image")
    head = golden.model.head()
    found = {name: compare(golden.logits(tokens, precision), theirs, tokens) for name, precision in (
        ("hardware", None), ("keys, values and head in float", Precision(kv=True, head=head)),
        ("queries, too", Precision(queries=True, kv=True, head=head)),
        ("all in float", Precision(True, True, True, head)))}
    print(f"transformers: in float64 {100 * floor:.2f} %, attention moved by {NOISE:g} {100 * moved:.2f} %")
    for name, agreement in found.items():
        print(f"{name}: argmax {100 * agreement.argmax_agreement:.1f} %, mean error "
              f"{100 * agreement.mean_logit_error:.2f} %, KL {agreement.kl_nats:.5f}")
    assert all(agreement.argmax_agreement >= 0.95 for agreement in found.values())
    assert found["hardware"].mean_logit_error <= 0.08
    assert found["queries, too"].mean_logit_error <= attention_bound
    assert found["all in float"].mean_logit_error < moved


@pytest.mark.parametrize("name", [*FAMILIES, *STORAGES])
def test_reduced(name: str, tmp_path: Path):
    family = {**FAMILIES, **STORAGES}[name]
    if name == "bitnet-masters-online":
        family = replace(family, dtype="fp32")
    check(family.reduced(width=400 if family.head_dim == 100 else 512 if family.head_dim == 256 else 384, heads=4),
          tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", list(FAMILIES))
def test_real_dimensions(name: str, tmp_path: Path):
    check(real_dimensions(FAMILIES[name]), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", ["bitnet-2b", "1bitllm-3b"])
def test_real_dimensions_with_outliers_everywhere(name: str, tmp_path: Path):
    """Flips alone take such a model to 5 %: transformers with its attention moved by 1e-4, no int8 decision in it."""
    check(replace(real_dimensions(FAMILIES[name]), outliers_everywhere=True), tmp_path, attention_bound=0.05)
