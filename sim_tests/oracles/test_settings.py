"""Whatever a config or a GGUF file's metadata says: if it changes what the oracle computes, the import reads the same
change or refuses the file, and what it doesn't read changes nothing there either."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hls_py.errors import TellmeError
from hls_py.model_import.config import ModelConfig
from hls_py.model_import.model import Model
from hls_py.oracles.llama_cpp_model import LlamaCppModel
from hls_py.oracles.transformers_model import TransformersModel
from sim_tests.harness.checkpoints import FAMILIES, Synthetic
from sim_tests.oracles.test_llama_cpp import BITNET, LLAMA, vocabulary

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.oracle

REMOVED = object()
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
ROPES: list[dict[str, Any]] = [
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7e3}},
    {"rope_scaling": {"factor": 2.0}}, {"rope_scaling": LLAMA3}, {"rope_scaling": {**LLAMA3, "rope_theta": 7e3}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, {"rope_parameters": {"rope_theta": 7e3}},
    {"rope_parameters": {"rope_type": "default"}}, {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    {"rope_theta": REMOVED, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    {"rope_theta": REMOVED, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 7e3}},
    {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, {"partial_rotary_factor": 0.5}]
"""Where published configs, old and new, keep a rotary embedding."""
OTHERS = (None, 2, 0.5, 7e3, True, False, "relu2", "silu")
"""Tried as the value of every other key."""

@pytest.fixture(scope="module", params=["bitnet-2b", "llama3-8b"])
def folder(request, tmp_path_factory) -> Path:
    family = FAMILIES[request.param].reduced(vocabulary=256)
    return Synthetic(family).write_huggingface(tmp_path_factory.mktemp(request.param) / "model")


def without(raw: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**raw, **change}.items() if value is not REMOVED}


def check_folder(folder: Path, changes: Iterator[dict[str, Any]]) -> tuple[int, int]:
    """(read, refused): each change of the config in turn, in the import and in transformers.

    What transformers itself doesn't take says nothing, and isn't counted.
    """
    file = folder / "config.json"
    raw = json.loads(file.read_text())
    tokens = np.random.default_rng(0).integers(0, 256, (1, 24))
    before, read, refused = TransformersModel(folder).logits(tokens), 0, 0
    config = Model(folder).config
    try:
        for change in changes:
            file.write_text(json.dumps(without(raw, change)))
            try:
                model = Model(folder)
                found, _ = model.config, model.head()
            except TellmeError:
                refused += 1
                continue
            try:
                oracle = TransformersModel(folder)
                logits = oracle.logits(tokens)
            except Exception:
                continue
            read += 1
            check_reading(found, oracle, change)
            if not np.array_equal(logits, before):
                assert found != config, f"{change} changes transformers' logits, and nothing here"
    finally:
        file.write_text(json.dumps(raw))
    return read, refused


def check_reading(found: ModelConfig, oracle: TransformersModel, change: dict[str, Any]) -> None:
    """What was read of a config against what transformers made of it."""
    body = oracle.model.model
    frequencies = found.rope.frequencies(found.head_dim)
    assert np.allclose(frequencies, body.rotary_emb.inv_freq.numpy(), rtol=1e-6, atol=0), change
    assert found.norm_epsilon == pytest.approx(body.norm.variance_epsilon), change
    assert (found.activation == "silu") == ("silu" in type(body.layers[0].mlp.act_fn).__name__.lower()), change
    assert found.heads // found.kv_heads == body.layers[0].self_attn.num_key_value_groups, change
    tied = oracle.model.lm_head.weight.data_ptr() == body.embed_tokens.weight.data_ptr()
    assert found.tied_head == tied, change


def test_rotary_embeddings(folder: Path):
    read, refused = check_folder(folder, iter(ROPES))
    assert read + refused == len(ROPES) and refused == 4


def test_keys_left_out(folder: Path):
    """A config without a key means transformers' default of its model type."""
    raw = json.loads((folder / "config.json").read_text())
    read, _ = check_folder(folder, ({key: REMOVED} for key in raw if key != "quantization_config"))
    assert read >= 10


@pytest.mark.full
def test_every_key(folder: Path):
    raw = json.loads((folder / "config.json").read_text())
    kind = transformers.BitNetConfig if raw["model_type"] == "bitnet" else transformers.LlamaConfig
    keys = sorted({key for key in vars(kind()) if not key.startswith("_")} | set(raw))
    read, refused = check_folder(folder, ({key: value} for key in keys for value in OTHERS if key != "model_type"))
    assert read > 80 and refused > 50


def test_a_head_of_its_own_that_the_config_ties(tmp_path):
    """transformers ties what is equal, and by its version ties or keeps what isn't: that is refused, by name."""
    family = replace(FAMILIES["falcon3-1b"].reduced(vocabulary=256), tied=False)
    folder = Synthetic(family).write_huggingface(tmp_path / "model")
    file = folder / "config.json"
    own = TransformersModel(folder).model.lm_head.weight
    file.write_text(json.dumps({**json.loads(file.read_text()), "tie_word_embeddings": True}))
    assert np.array_equal(TransformersModel(folder).model.lm_head.weight.numpy(force=True), own.numpy(force=True))
    with pytest.raises(TellmeError, match=r"lm_head.weight differs from model.embed_tokens.weight \(row 0\)"):
        Model(folder).head()


# ---- GGUF -----------------------------------------------------------------------------------------------------------

@pytest.mark.full
@pytest.mark.parametrize("architecture", ["llama", "bitnet"])
def test_every_metadata_key(tmp_path, architecture):
    """Every key that the gguf package knows for an architecture, against llama.cpp's logits."""
    pytest.importorskip("xllamacpp")
    family = LLAMA if architecture == "llama" else BITNET
    path = tmp_path / "model.gguf"

    def write(more: dict[str, Any]) -> None:
        path.unlink(missing_ok=True)
        Synthetic(family).write_gguf(path, architecture, "TQ2_0", "F16", {**vocabulary(), **more})

    tokens = np.random.default_rng(0).integers(2, family.vocabulary, (1, 24))
    write({})
    config, before = Model(path).config, LlamaCppModel(path).logits(tokens)
    read = 0
    for key in metadata_keys(architecture):
        for value in (3, 2.0, False):
            write({key: value})
            try:
                found = Model(path).config
                logits = LlamaCppModel(path).logits(tokens)
            except TellmeError:
                continue
            read += 1
            same = found == replace(config, max_positions=found.max_positions)
            assert same == np.array_equal(logits, before), f"{key} = {value}"
    assert read > 100


def metadata_keys(architecture: str) -> list[str]:
    groups = (gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope, gguf.Keys.SSM)
    texts = {text for group in groups for text in vars(group).values()
             if isinstance(text, str) and text.startswith("{arch}.")}
    return sorted(text.replace("{arch}", architecture) for text in texts | {"{arch}.rope.scale_linear"})
