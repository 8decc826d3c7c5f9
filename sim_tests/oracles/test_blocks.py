"""Each matrix product and each kernel by itself, fed with what the oracle's own block reads.

Where the oracle rounds to int8, golden's codes may differ from its in the rare values that lie within float32's error
of a tie; products are compared on the oracle's codes, exactly as many as float32 tells apart (1e-5 of the largest).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hls_py.golden.attention.attention import attend
from hls_py.golden.attention.float_attention import float_attend
from hls_py.golden.head.logits import logits_of
from hls_py.golden.ternary_matmul.engine import matmul_weights
from hls_py.golden.vector_unit.drain import drain_residual, gated, quantise_heads, rotated_heads, row_scales
from hls_py.golden.vector_unit.quantise import quantise
from hls_py.model_import.model import Layer, Model
from hls_py.oracles.transformers_model import TransformersModel
from hls_py.packing.matrices import quantise_head_rows, rotary_pair_order
from rtl.contract.command_words import ActivationFunction
from sim_tests.harness.checkpoints import FAMILIES
from sim_tests.oracles.families import PeakedHead, real_dimensions

pytestmark = pytest.mark.oracle

TOLERANCE = 1e-5
FLIPS = 1e-3
"""Share of int8 codes that may fall to the other side of a tie."""
LENGTH = 40


def assert_close(ours: np.ndarray, theirs: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Largest difference, relative to the largest value of each row."""
    theirs = theirs.reshape(ours.shape)
    largest = np.abs(theirs).max(axis=-1, keepdims=True)
    error = (np.abs(ours - theirs) / np.where(largest == 0, 1, largest)).max()
    assert error <= tolerance, f"relative error {error:.2e}"


class Stage:
    """A model in transformers, what each block of layer 1 puts out, and what each projection reads."""

    def __init__(self, name: str, folder: Any, real: bool):
        family = FAMILIES[name]
        family = real_dimensions(family) if real else replace(
            family.reduced(width=400 if family.head_dim == 100 else 384), layers=2)
        path = PeakedHead(replace(family, vocabulary=1024)).write_huggingface(folder / name)
        self.source = Model(path)
        self.config = self.source.config
        self.oracle = TransformersModel(path)
        self.parts: Layer = self.source.layer(1)
        self.reads: dict[str, np.ndarray] = {}
        self.puts_out: dict[str, np.ndarray] = {}
        layer = self.oracle.layer(1)
        for part in ("query", "key", "value", "output", "gate", "up", "down"):
            self.oracle.projection(1, part).register_forward_hook(self._keep(part))
        layer.self_attn.register_forward_pre_hook(self._keep_angles, with_kwargs=True)
        tokens = np.random.default_rng(3).integers(0, 1024, (1, LENGTH))
        self.logits, self.blocks = self.oracle.logits_and_blocks(tokens)

    def _keep(self, part: str) -> Any:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            self.reads[part], self.puts_out[part] = inputs[0][0].numpy().copy(), output[0].numpy().copy()
        return hook

    def _keep_angles(self, _: Any, inputs: Any, keywords: Any) -> None:
        cos, sin = keywords["position_embeddings"]
        half = self.config.head_dim // 2
        self.cos, self.sin = cos[0, :, :half].numpy(), sin[0, :, :half].numpy()

    def oracle_codes(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """int8 codes and float32 scales [rows] as transformers quantises what a projection reads."""
        x = self.reads[part]
        factor = np.float32(127) / np.maximum(np.abs(x).max(axis=1, keepdims=True), np.float32(1e-5))
        return np.clip(np.rint(x * factor), -128, 127).astype(np.int8), (1 / factor[:, 0]).astype(np.float32)

    def sums(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Golden's sums on the oracle's codes, and the scale of each row."""
        codes, scale = self.oracle_codes(part)
        matrix = getattr(self.parts, part)
        return matmul_weights(matrix.codes, codes), row_scales(scale, matrix.scale)

    def heads(self, part: str) -> np.ndarray:
        """float32 [rows, heads, head_dim] of the oracle, rotary pairs side by side."""
        d = self.config.head_dim
        heads = self.blocks[f"1.{part}"].reshape(LENGTH, -1, d)
        return heads if part == "value" else heads[..., rotary_pair_order(d)]


NAMES = ("bitnet-2b", "1bitllm-3b", "falcon3-1b", "llama3-8b")


@pytest.fixture(scope="module", params=[*(pytest.param((name, False), id=name) for name in NAMES),
                                        *(pytest.param((name, True), id=f"{name}-real", marks=pytest.mark.full)
                                          for name in NAMES)])
def stage(request, tmp_path_factory) -> Stage:
    name, real = request.param
    return Stage(name, tmp_path_factory.mktemp("blocks"), real)


@pytest.mark.parametrize("part", ["query", "key", "value", "output", "gate", "up", "down"])
def test_product(stage: Stage, part: str):
    """Ternary codes and scales as read, sums, scaling: transformers' projection of the same input."""
    sums, scale = stage.sums(part)
    assert_close(drain_residual(sums, scale, np.zeros(sums.shape, np.float32)), stage.puts_out[part])


@pytest.mark.parametrize("part", ["query", "output", "gate", "down"])
def test_activations(stage: Stage, part: str):
    """int8 activations of what a projection reads."""
    codes, scale = quantise(stage.reads[part], None, False, 0.0, 0.0)
    theirs, their_scale = stage.oracle_codes(part)
    assert_close(scale, their_scale)
    off = np.abs(codes.astype(int) - theirs)
    assert off.max() <= 1 and (off > 0).mean() <= FLIPS


@pytest.mark.parametrize("part, gain, block", [
    ("query", "input_gain", "0.residual"), ("gate", "post_attention_gain", "1.attention_residual"),
    ("output", "attention_gain", "1.attention"), ("down", "ffn_gain", "1.gated")])
def test_norm_and_activations(stage: Stage, part: str, gain: str, block: str):
    """The fused norm and quantisation of the oracle's vector: transformers' RMSNorm, then its quantisation."""
    gains = getattr(stage.parts, gain)
    x = stage.blocks[block]
    codes, scale = quantise(x, gains, gains is not None, np.float32(1) / np.float32(x.shape[1]),
                            stage.config.norm_epsilon)
    theirs, their_scale = stage.oracle_codes(part)
    assert_close(scale, their_scale)
    off = np.abs(codes.astype(int) - theirs)
    assert off.max() <= 1 and (off > 0).mean() <= FLIPS


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_heads(stage: Stage, part: str):
    """Scaling and RoPE of the sums, then int8 heads within half a step (and bfloat16's rounding up of the scale)."""
    sums, scale = stage.sums(part)
    d = stage.config.head_dim
    by_head = sums.reshape(LENGTH, -1, d)
    if part != "value":
        by_head = by_head[..., rotary_pair_order(d)]
    found = rotated_heads(by_head, scale, stage.cos, stage.sin, part != "value")
    assert_close(found, stage.heads(part))
    codes, bits = quantise_heads(found)
    step = (bits.astype(np.uint32) << 16).view(np.float32)[..., None]
    assert (np.abs(codes[..., :d] * step - found) <= 0.5001 * step).all()


def test_angles(stage: Stage):
    """cos and sin of the rotary table."""
    angles = np.arange(LENGTH)[:, None] * stage.config.rope.frequencies(stage.config.head_dim).astype(np.float64)
    assert_close(np.cos(angles), stage.cos, 1e-5)
    assert_close(np.sin(angles), stage.sin, 1e-5)


def test_attention(stage: Stage):
    """In float on the oracle's heads: its attention. In int8 on int8 heads: what the float one makes of the same."""
    d = stage.config.head_dim
    factor = np.float32(np.log2(np.e) / np.sqrt(d))
    causal = np.tri(LENGTH, dtype=bool)
    heads = {part: stage.heads(part) for part in ("query", "key", "value")}
    found = float_attend(heads["query"], heads["key"], heads["value"], None, 0, causal, factor, True)
    assert_close(found.reshape(LENGTH, -1), stage.blocks["1.attention"])
    codes, scales = {}, {}
    for part, values in heads.items():
        codes[part], bits = quantise_heads(values)
        scales[part] = (bits.astype(np.uint32) << 16).view(np.float32)
    hardware = attend(codes["query"], scales["query"], codes["key"], scales["key"], codes["value"][..., :d],
                      scales["value"], 0, causal, factor)
    back = {part: codes[part][..., :d] * scales[part][..., None] for part in heads}
    expected = float_attend(back["query"], back["key"], back["value"], None, 0, causal, factor, True)
    assert_close(hardware, expected, 2e-4)  # 14-bit weights by tile: half a step of 1/16383 a position at most


def test_gated(stage: Stage):
    """act(gate)·up of the sums."""
    gate, gate_scale = stage.sums("gate")
    up, up_scale = stage.sums("up")
    found = gated(gate, up, gate_scale, up_scale, ActivationFunction[stage.config.activation.upper()])
    assert_close(found, stage.blocks["1.gated"])


@pytest.mark.parametrize("part, before, after", [("output", "0.residual", "1.attention_residual"),
                                                 ("down", "1.attention_residual", "1.residual")])
def test_residual(stage: Stage, part: str, before: str, after: str):
    sums, scale = stage.sums(part)
    assert_close(drain_residual(sums, scale, stage.blocks[before]), stage.blocks[after])


def test_head(stage: Stage):
    """int8 rows against an int8 operand: what float64 makes of the same codes. In float: transformers' logits."""
    x, gains = stage.blocks["1.residual"], stage.source.final_gain()
    operand, scale = quantise(x, gains, True, np.float32(1) / np.float32(x.shape[1]), stage.config.norm_epsilon)
    rows = stage.source.head()
    codes, row_scale = quantise_head_rows(rows)
    exact = (operand * scale[:, None].astype(np.float64)) @ (codes * row_scale[:, None].astype(np.float64)).T
    assert_close(logits_of(operand, scale, codes, row_scale), exact)
    normed = x * gains / np.sqrt((x.astype(np.float64)**2).mean(axis=1, keepdims=True) + stage.config.norm_epsilon)
    assert_close(normed @ rows.T.astype(np.float64), stage.logits[0])
    assert np.abs(codes * row_scale[:, None] - rows).max() <= 0.5001 * row_scale.max()
