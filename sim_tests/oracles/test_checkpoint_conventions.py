"""How checkpoints store things, against transformers reading the same folder.

Rounding flips make 3 to 5 % of the logits' deviation in these random models; plain RoPE in place of llama3's 25 %, a
scale that is divided instead of multiplied more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hls_py.oracles.transformers_model import transformers_logits
from host.cli import main
from sim_tests.harness.checkpoints import FAMILIES, Synthetic

pytestmark = pytest.mark.oracle

LLAMA = replace(FAMILIES["llama3-8b"].reduced(vocabulary=512), head_dim=64, heads=4, kv_heads=2)
BITNET = FAMILIES["bitnet-2b"].reduced(vocabulary=512)
CASES = {
    "llama, scale divides": (LLAMA, 1), "llama, scale multiplies": (replace(LLAMA, linear_class="autobitlinear"), 1),
    "llama, in shards, float16": (replace(LLAMA, dtype="fp16"), 3), "llama3 RoPE": (replace(LLAMA, llama3=True), 1),
    "head_dim 256": (FAMILIES["falcon3-1b"].reduced(vocabulary=512, width=512), 1),
    "bitnet, scale multiplies": (BITNET, 1), "bitnet, scale divides": (replace(BITNET, linear_class="bitlinear"), 1),
    "bitnet masters": (replace(BITNET, storage="masters"), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_logits(tmp_path, case):
    family, shards = CASES[case]
    folder = Synthetic(family).write_huggingface(tmp_path / "model", shards)
    tokens = np.random.default_rng(0).integers(2, family.vocabulary, (2, 40))
    np.save(tmp_path / "tokens.npy", tokens)
    assert main(["logits", "--device", "golden", "--model", str(folder), "--cache", str(tmp_path / "cache"), "--quiet",
                 "--tokens", str(tmp_path / "tokens.npy"), "-o", str(tmp_path / "logits.npy")]) == 0
    ours, theirs = np.load(tmp_path / "logits.npy"), transformers_logits(folder, tokens)
    error = np.abs(ours - theirs).mean() / theirs.std()
    print(f"{case}: mean error {100 * error:.1f} % of the deviation")
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99 and error < 0.08
