"""`tellme-hls verify` with an oracle of known faults: what it prints, names, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hls_py.cli import main
from hls_py.commands import verify
from hls_py.errors import TellmeError
from hls_py.oracles import llama_cpp_model, transformers_model
from hls_py.oracles.agreement import compare, compare_blocks, first_divergence, perplexity_difference
from hls_py.oracles.oracle import choose
from sim_tests.harness.checkpoints import FAMILIES, Synthetic
from sim_tests.harness.models import TinyModel

FAULTY_ROW = 21


@pytest.fixture
def model(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("TELLME_BUILD_DIR", str(tmp_path / "build"))
    return TinyModel(layers=2).write(tmp_path / "model")


class Faulty:
    """Golden's own answers, but for a block that is wrong from one row on."""

    fault = ""
    name = "faulty"

    def __init__(self, path: Path, i2s_layout: str | None = None):
        self.golden = verify.Golden(path)

    def logits_and_blocks(self, tokens):
        logits, blocks = self.golden.run(tokens, blocks=True)
        if self.fault:
            blocks[self.fault][FAULTY_ROW:] = blocks[self.fault][FAULTY_ROW:, ::-1]
        return logits, blocks


def test_layers(model: Path, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.setattr(transformers_model, "TransformersModel", Faulty)
    arguments = ["verify", str(model), "--positions", "32", "--length", "16", "--layers", "-q",
                 "--plot", str(tmp_path / "plot.png"), "-o", str(tmp_path / "found.json")]
    assert main(arguments) == 0
    out = capfd.readouterr().out
    assert "argmax agreement         100.00 %" in out and "first beyond 25 %: none" in out and "perplexity" not in out
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["blocks"]) == 15 and not any(block["worst"] for block in found["blocks"])

    monkeypatch.setattr(Faulty, "fault", "1.gated")
    assert main(arguments) == 1
    out, err = capfd.readouterr()
    assert "part at layer 1, gated, sequence 1 position 5" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("change, message", [
    (["--positions", "0"], "at least 1 position"),
    (["--tolerance", "0"], "above 0"),
    (["--plot", "/"], "can't be written"),
    (["--against", "llama.cpp"], "it reads GGUF files only; use --against transformers"),
    (["--against", "llama.cpp", "--layers"], "shows logits only"),
    (["--text", "nowhere.txt"], "nowhere.txt can't be read"),
    (["--text", __file__], "has no tokenizer.json or tokenizer.model"),
])
def test_refusals(model: Path, monkeypatch, capfd, change: list[str], message: str):
    monkeypatch.setattr(transformers_model, "TransformersModel", Faulty)
    assert main(["verify", str(model), "-q", *change]) == 1
    err = capfd.readouterr().err
    assert message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("architecture, matrices, installed, asked, layers, expected", [
    ("llama", "TQ2_0", True, None, False, ("llama.cpp", "for it is a GGUF file")),
    ("llama", "TQ2_0", True, None, True, ("transformers", "for llama.cpp shows no layers")),
    ("llama", "TQ2_0", True, "transformers", False, ("transformers", "as asked")),
    ("llama", "TQ2_0", False, None, False, ("transformers", "pip install 'tellme[llama]'")),
    ("llama", "TQ2_0", False, "llama.cpp", False, "pip install 'tellme[llama]'"),
    ("bitnet-b1.58", "TQ2_0", True, None, False, ("transformers", "no architecture 'bitnet-b1.58'")),
    ("bitnet", "I2_S-x86", True, None, False, ("transformers", "can't read I2_S")),
    ("bitnet", "I2_S-x86", True, "llama.cpp", False, "can't read I2_S weights; use --against transformers"),
])
def test_who_is_asked(tmp_path, monkeypatch, architecture, matrices, installed, asked, layers, expected):
    """llama.cpp where it can be; what it can't do is told in a line, and so is who is asked in its place."""
    monkeypatch.setattr(llama_cpp_model, "is_installed", lambda: installed)
    family = FAMILIES["bitnet-2b" if architecture.startswith("bitnet") else "llama3-8b"].reduced()
    path = Synthetic(family).write_gguf(tmp_path / "model.gguf", architecture, matrices)
    if isinstance(expected, str):
        with pytest.raises(TellmeError) as refusal:
            choose(path, asked, layers)
        assert expected in str(refusal.value)
        return
    which, why = choose(path, asked, layers)
    assert which == expected[0] and expected[1] in why


def test_figures():
    """Against numbers by hand: two tokens, probabilities 3:1 and 1:1."""
    ours = np.log(np.array([[[3.0, 1.0], [1.0, 1.0]]], np.float32))
    theirs = np.zeros((1, 2, 2), np.float32)
    theirs[0, 1] = (0, 1)
    found = compare(ours, theirs, np.array([[0, 1]]))
    assert found.positions == 2 and found.argmax_agreement == 0.5
    assert found.nats_per_token == pytest.approx(-np.log(0.25))
    assert found.oracle_nats_per_token == pytest.approx(np.log(2))
    assert found.perplexity_ratio == pytest.approx(2)
    p = 1 / (1 + np.e)
    second = p * np.log(p / 0.5) + (1 - p) * np.log((1 - p) / 0.5)
    assert found.kl_nats == pytest.approx((0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25) + second) / 2)


def test_the_spread_of_a_difference():
    found = perplexity_difference([2.0, 2.1, 2.6], [2.0, 2.2, 2.4])
    mean = (0.0 - 0.1 + 0.2) / 3
    error = np.sqrt(sum((d - mean) ** 2 for d in (0.0, -0.1, 0.2)) / 2 / 3)
    assert found.relative == pytest.approx(np.exp(mean) - 1)
    assert found.standard_error == pytest.approx(np.exp(mean) * error)
    assert str(found) == f"{100 * found.relative:+.3f} % ± {100 * found.standard_error:.3f} %"
    assert str(perplexity_difference([2.0], [2.0])) == "+0.000 %"


def test_decisions(model: Path, tmp_path: Path, monkeypatch, capfd):
    """A line for each decision; the costs are of the same sequences as the hardware's line."""
    monkeypatch.setattr(verify, "oracle_answers", lambda which, path, layout, tokens, layers: (
        verify.golden_logits(path, tokens, True), {}, "itself"))
    arguments = ["verify", str(model), "--positions", "32", "--length", "16", "--decisions", "-q",
                 "-o", str(tmp_path / "found.json")]
    assert main(arguments) == 0
    out = capfd.readouterr().out
    lines = {line[:20].strip(): line for line in out.splitlines()}
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["decisions"]) == ["queries", "kv", "attention_weights", "head", "queries and kv", "all"]
    assert "100.00 %" in lines["nothing (hardware)"] and "±" not in lines["nothing (hardware)"]
    for name, cost in found["decisions"].items():
        difference = perplexity_difference(found["sequence_nats"], cost["sequence_nats"])
        assert difference.relative and str(difference) in lines[name], name
        assert f"{np.exp(cost['nats_per_token']):.4f}" in lines[name]
    assert "±: the standard error" in out


def test_first_divergence_is_the_first_in_order():
    rows = np.random.default_rng(1).normal(0, 1, (6, 8)).astype(np.float32)
    theirs = {"0.residual": rows, "1.query": rows, "10.query": rows, "2.gated": rows}
    ours = {**theirs, "10.query": rows[::-1], "2.gated": np.pad(rows[:, ::-1], ((0, 0), (0, 4)))}
    errors = compare_blocks(ours, theirs, 0.25)
    assert [(e.layer, e.block) for e in errors] == [(0, "residual"), (1, "query"), (2, "gated"), (10, "query")]
    found = first_divergence(errors, 0.25)
    assert found and (found.layer, found.block, found.first_row) == (2, "gated", 0)
    ours["1.query"] = np.full_like(rows, np.nan)
    found = first_divergence(compare_blocks(ours, theirs, 0.25), 0.25)
    assert found and (found.layer, found.block) == (1, "query")
