"""GGUF files against llama.cpp itself: the same file in both, logits of every position.

llama.cpp quantises activations by block of 256 (F16 matrices: not at all), golden by token, and llama.cpp's keys and
values are float16, golden's int8; random weights amplify every rounding flip. Measured over CASES: golden is 3.0 to
6.6 % of the deviation away from llama.cpp; transformers, in float32 on the very same weights, 2.0 to 6.1 %.
What reading a file wrongly does is more: rows of q and k left permuted 42 %, plain RoPE in place of llama3's 25 %.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hls_py.cli import main
from hls_py.errors import TellmeError
from hls_py.model_import.model import Model
from hls_py.oracles.agreement import compare
from hls_py.oracles.llama_cpp_model import LlamaCppModel
from hls_py.oracles.transformers_model import TransformersModel
from sim_tests.harness.checkpoints import FAMILIES, Family, Synthetic
from sim_tests.oracles.families import GoldenModel, PeakedHead, real_dimensions

pytest.importorskip("xllamacpp")
pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEMO_MODEL = EXAMPLES / "demo_model"
HELD_OUT = EXAMPLES / "train_demo" / "text" / "held_out.txt.xz"
VOCABULARY = 1024
LLAMA = replace(FAMILIES["llama3-8b"].reduced(vocabulary=VOCABULARY), head_dim=64, heads=4, kv_heads=2)
BITNET = replace(FAMILIES["bitnet-2b"].reduced(vocabulary=VOCABULARY), head_dim=64, heads=4, kv_heads=2,
                 activation="silu", theta=1e4)
LINEAR = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
FACTOR_ALONE, FACTOR_OF_OLD, FACTOR_UNUSED = ({"llama.rope.scaling.factor": 2.0}, {"llama.rope.scale_linear": 2.0},
                                              {**LINEAR, "llama.rope.scaling.type": "none"})
CASES: list[tuple[str, Any, str, bool, dict[str, Any]]] = [
    ("llama", LLAMA, "TQ2_0", False, {}), ("llama", LLAMA, "TQ1_0", True, {}),
    ("llama", replace(LLAMA, llama3=True), "TQ2_0", False, {}), ("llama", LLAMA, "TQ2_0", False, LINEAR),
    ("llama", LLAMA, "TQ2_0", False, FACTOR_ALONE), ("llama", LLAMA, "TQ2_0", False, FACTOR_OF_OLD),
    ("llama", LLAMA, "TQ2_0", False, FACTOR_UNUSED),
    ("bitnet", BITNET, "TQ2_0", False, {}), ("bitnet", BITNET, "TQ1_0", True, {}),
    ("bitnet", FAMILIES["1bitllm-3b"].reduced(vocabulary=VOCABULARY, width=200), "F16", False, {}),
    ("llama", FAMILIES["falcon3-1b"].reduced(vocabulary=VOCABULARY, width=512), "TQ2_0", False, {}),
    ("llama", FAMILIES["falcon-e-1b"].reduced(vocabulary=VOCABULARY, width=512), "TQ1_0", False, {})]


def vocabulary(size: int = VOCABULARY) -> dict[str, Any]:
    """llama.cpp loads no file without one."""
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": ["<s>", "</s>", *(f"w{n}" for n in range(2, size))],
            "tokenizer.ggml.token_type": [3, 3] + [1] * (size - 2), "tokenizer.ggml.merges": ["w 2"],
            "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1}


def write(folder, case: int, **metadata: Any):
    architecture, family, matrices, scale_tensors, more = CASES[case]
    return PeakedHead(family, case).write_gguf(folder / "model.gguf", architecture, matrices, "F16",
                                               {**vocabulary(), **more, **metadata}, scale_tensors)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_logits(tmp_path, case):
    model = write(tmp_path, case)
    tokens = np.random.default_rng(case).integers(2, VOCABULARY, (2, 48))
    found = compare(GoldenModel(model, tmp_path / "image").logits(tokens), LlamaCppModel(model).logits(tokens), tokens)
    print(f"{CASES[case][0]} {CASES[case][2]}: argmax {100 * found.argmax_agreement:.1f} %, mean error "
          f"{100 * found.mean_logit_error:.2f} %, KL {found.kl_nats:.5f}")
    assert found.mean_logit_error <= 0.08 and found.kl_nats <= 0.1
    assert found.argmax_agreement >= 0.9


@pytest.mark.full
@pytest.mark.parametrize("name", list(FAMILIES))
def test_real_dimensions(name: str, tmp_path):
    """The families' own widths, and SiLU in all of them: llama.cpp's bitnet has no other. Wider rows have more blocks
    of 256, each with a scale of its own: transformers in float32 is the measure of what that alone makes."""
    family = replace(real_dimensions(FAMILIES[name]), activation="silu")
    whole_blocks = not any(width % 256 for width in (family.hidden, family.ffn, family.heads * family.head_dim))
    model = PeakedHead(family).write_gguf(
        tmp_path / "model.gguf", "bitnet" if family.sub_norms else "llama", "TQ2_0" if whole_blocks else "F16", "F16",
        vocabulary(family.vocabulary))
    tokens = np.random.default_rng(5).integers(2, family.vocabulary, (2, 48))
    theirs = LlamaCppModel(model).logits(tokens)
    found = compare(GoldenModel(model, tmp_path / "image").logits(tokens), theirs, tokens)
    between = compare(TransformersModel(model).logits(tokens), theirs, tokens)
    for who, agreement in (("golden", found), ("transformers", between)):
        print(f"{name}, {who} and llama.cpp: argmax {100 * agreement.argmax_agreement:.1f} %, mean error "
              f"{100 * agreement.mean_logit_error:.2f} %, KL {agreement.kl_nats:.5f}")
    assert found.argmax_agreement >= 0.95
    assert found.mean_logit_error <= min(0.08, 0.01 + between.mean_logit_error)


def test_a_difference_shows(tmp_path):
    """Another RoPE base in the file that llama.cpp reads."""
    (tmp_path / "other").mkdir()
    model, other = write(tmp_path, 0), write(tmp_path / "other", 0, **{"llama.rope.freq_base": 3e3})
    tokens = np.random.default_rng(0).integers(2, VOCABULARY, (2, 48))
    found = compare(GoldenModel(model, tmp_path / "image").logits(tokens), LlamaCppModel(other).logits(tokens), tokens)
    assert found.mean_logit_error > 0.12


def test_long_sequences(tmp_path):
    """Several batches a sequence, none of which the length divides into; a position hears of nothing behind it."""
    model = write(tmp_path, 0, **{"llama.context_length": 2048})
    tokens = np.random.default_rng(0).integers(2, VOCABULARY, (2, 700))
    oracle = LlamaCppModel(model)
    logits = oracle.logits(tokens)
    assert compare(oracle.logits(tokens[:, :60]), logits[:, :60], tokens[:, :60]).mean_logit_error < 0.05
    assert compare(oracle.logits(tokens[1:]), logits[1:], tokens[1:]).mean_logit_error == 0


def copy_of_demo_model(path: Path) -> Path:
    """The demo model and its tokenizer as a GGUF file."""
    demo = Model(DEMO_MODEL)
    c, layers = demo.config, [demo.layer(n) for n in range(demo.config.layers)]

    class Demo(Synthetic):
        def codes(self, layer: int, part: str) -> np.ndarray:
            return getattr(layers[layer], part).codes

        def scale(self, layer: int, part: str) -> float:
            return float(getattr(layers[layer], part).scale)

        def gain(self, layer: int, part: str) -> np.ndarray:
            return np.asarray(demo.final_gain() if layer < 0 else getattr(layers[layer], part))

        def embedding(self) -> np.ndarray:
            return demo.embedding()

    raw = json.loads((DEMO_MODEL / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    words = {**vocabulary(), "tokenizer.ggml.tokens": sorted(raw["vocab"], key=raw["vocab"].get),
             "tokenizer.ggml.merges": [" ".join(merge) for merge in raw["merges"]]}
    family = Family(c.hidden_size, c.layers, c.heads, c.kv_heads, c.head_dim, c.intermediate_size, c.vocabulary,
                    epsilon=c.norm_epsilon, max_positions=c.max_positions)
    return Demo(family).write_gguf(path, "bitnet", "TQ2_0", "BF16", words)


def test_demo_model(tmp_path, monkeypatch, capfd):
    """A trained model on text: its perplexity is llama.cpp's."""
    monkeypatch.setenv("TELLME_BUILD_DIR", str(tmp_path / "build"))
    model = copy_of_demo_model(tmp_path / "demo.gguf")
    assert main(["verify", str(model), "--text", str(HELD_OUT), "--positions", "2048", "-q",
                 "-o", str(tmp_path / "found.json")]) == 0
    print(capfd.readouterr().out)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["against"].startswith("llama.cpp") and found["positions"] == 2048
    assert abs(found["perplexity_ratio"] - 1) <= 0.005 and found["argmax_agreement"] >= 0.95


def test_verify(tmp_path, monkeypatch, capfd):
    """The command: llama.cpp unless something else is asked for; the same table, figures and plot."""
    monkeypatch.setenv("TELLME_BUILD_DIR", str(tmp_path / "build"))
    arguments = ["verify", str(write(tmp_path, 0)), "--positions", "96", "--length", "48", "-q"]
    assert main([*arguments, "-o", str(tmp_path / "found.json"), "--plot", str(tmp_path / "plot.png")]) == 0
    out = capfd.readouterr().out
    assert out.startswith("against                  llama.cpp (xllamacpp ") and "positions                96" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["mean_logit_error"] < 0.08 and found["against"].startswith("llama.cpp") and found["blocks"] == []
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--layers"]) == 0
    assert "against                  transformers (float32), for llama.cpp shows no layers" in capfd.readouterr().out


def test_files_that_llama_cpp_refuses(tmp_path):
    """Its own words, in one line."""
    model = PeakedHead(LLAMA).write_gguf(tmp_path / "model.gguf", "llama")
    with pytest.raises(TellmeError, match=r"could not run .*vocab") as refusal:
        LlamaCppModel(model).logits(np.zeros((1, 4), int))
    assert "\n" not in str(refusal.value)
    with pytest.raises(TellmeError, match="invalid token"):
        LlamaCppModel(write(tmp_path, 0)).logits(np.full((1, 4), 5000))
