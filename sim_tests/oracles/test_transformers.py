"""Golden against Hugging Face transformers' BitNet in float32."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hls_py.commands.verify import compare, golden_logits, read_tokens
from hls_py.oracles.transformers_model import transformers_logits
from sim_tests.harness.models import TinyModel

pytestmark = pytest.mark.oracle

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEMO_MODEL = EXAMPLES / "demo_model"
HELD_OUT = EXAMPLES / "train_demo" / "text" / "held_out.txt.xz"


def test_demo_model_on_held_out_text():
    tokens = read_tokens(DEMO_MODEL, HELD_OUT, 2048, 256)
    found = compare(golden_logits(DEMO_MODEL, tokens, True), transformers_logits(DEMO_MODEL, tokens), tokens)
    print(found)
    assert found.positions >= 2000
    assert found.argmax_agreement >= 0.95
    assert abs(found.perplexity_ratio - 1) <= 0.003


@pytest.mark.parametrize("model", [
    TinyModel(hidden=128, layers=2, heads=4, kv_heads=2, head_dim=32, ffn=320, vocabulary=128, activation="relu2",
              tied=False),
    TinyModel(hidden=96, layers=2, heads=3, kv_heads=3, head_dim=32, ffn=200, vocabulary=100, seed=3),
], ids=["grouped_relu2_untied", "silu_tied"])
def test_random_models(model: TinyModel, tmp_path: Path):
    """Random weights amplify rounding flips; a wrong activation or head mapping gives errors of over 100 %."""
    folder = model.write(tmp_path / "model")
    shutil.copy(DEMO_MODEL / "tokenizer.json", folder)
    tokens = np.random.default_rng(7).integers(0, model.vocabulary, (4, 64))
    found = compare(golden_logits(folder, tokens, True), transformers_logits(folder, tokens), tokens)
    print(found)
    assert found.mean_logit_error <= 0.08
    assert found.argmax_agreement >= 0.9
