"""What published checkpoints' config.json say (on Hugging Face's hub), keys that nobody needs included: accepted, with
the dimensions that the fixtures of :mod:`sim_tests.harness.checkpoints` have."""

from __future__ import annotations

from typing import Any

import pytest

from hls_py.model_import.config import parse_config
from sim_tests.harness.checkpoints import FAMILIES, Family, Synthetic

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "attention_dropout": 0.0,
    "hidden_act": "silu", "initializer_range": 0.02, "is_bitnet_config": True, "mlp_bias": False, "pretraining_tp": 1,
    "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
    "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "bitnet"}}
FALCON3: dict[str, Any] = {**LLAMA, "head_dim": 256, "num_key_value_heads": 4, "rms_norm_eps": 1e-6,
                           "rope_theta": 1000042, "vocab_size": 131072, "eos_token_id": 11}
ONE_BIT: dict[str, Any] = {
    "architectures": ["BitnetForCausalLM"], "model_type": "llama", "attention_bias": False, "hidden_act": "silu",
    "input_bits": 8, "weight_bits": 1, "max_position_embeddings": 2048, "pad_token_id": 32000, "rms_norm_eps": 1e-5,
    "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": True, "torch_dtype": "float16",
    "vocab_size": 32002}


def sizes(hidden: int, ffn: int, layers: int, heads: int, positions: int | None = None) -> dict[str, int]:
    found = {"hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
             "num_attention_heads": heads, "max_position_embeddings": positions}
    return {key: value for key, value in found.items() if value is not None}


PUBLISHED: dict[str, tuple[str | None, dict[str, Any]]] = {
    "microsoft/bitnet-b1.58-2B-4T (a copy's)": ("bitnet-2b", {
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2", "rms_norm_eps": 1e-5,
        "auto_map": {"AutoConfig": "configuration_bitnet.BitNetConfig"}, "num_key_value_heads": 5,
        "rope_theta": 500000.0, "tie_word_embeddings": True, "vocab_size": 128256, **sizes(2560, 6912, 30, 20, 4096),
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                "quantization_mode": "offline"}}),
    "1bitLLM/bitnet_b1_58-large": ("1bitllm-large", {**ONE_BIT, **sizes(1536, 4096, 24, 16),
                                                     "num_key_value_heads": 16}),
    "1bitLLM/bitnet_b1_58-3B": ("1bitllm-3b", {**ONE_BIT, **sizes(3200, 8640, 26, 32), "num_key_value_heads": 32}),
    "tiiuae/Falcon3-1B-Instruct-1.58bit": ("falcon3-1b", {**FALCON3, **sizes(2048, 8192, 18, 8, 8192)}),
    "tiiuae/Falcon3-3B-Base-1.58bit": (None, {**FALCON3, **sizes(3072, 9216, 22, 12, 4096), "activation": "swiglu",
                                              "parallel_attn": False}),
    "tiiuae/Falcon3-7B-Base-1.58bit": (None, {
        **FALCON3, **sizes(3072, 23040, 28, 12, 8192), "activation": "swiglu", "parallel_attn": False,
        "auto_map": {"AutoConfig": "tiiuae/falcon3-7B--configuration_llama.LlamaConfig"}}),
    "tiiuae/Falcon3-10B-Base-1.58bit": ("falcon3-10b", {**FALCON3, **sizes(3072, 23040, 40, 12, 32768)}),
    "a fine-tuned Falcon-E-1B (Arvyniitb/1bitModel)": ("falcon-e-1b", {
        **LLAMA, **sizes(2048, 9216, 24, 16, 32768), "head_dim": 128, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "rope_theta": 1000000, "vocab_size": 32768}),
    "HF1BitLLM/Llama3-8B-1.58-Sigmoid-k100-10B-tokens": ("llama3-8b", {
        **LLAMA, **sizes(4096, 14336, 32, 32, 8192), "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "rope_interleaved": False, "rope_theta": 500000.0, "vocab_size": 128256,
        "quantization_config": {"modules_to_not_convert": None, "quant_method": "bitnet"}}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name: str):
    family, raw = PUBLISHED[name]
    found = parse_config(raw)
    assert found.masters == name.startswith("1bitLLM")
    if family:
        assert found == parse_config(Synthetic(FAMILIES[family]).config())


def gguf_bytes_of(family: Family) -> int:
    """Bytes of a GGUF file with I2_S matrices and 16-bit rows, but for metadata and tokenizer (1 to 2 MB)."""
    content = Synthetic(family)
    weights = sum(a * b for a, b in map(content.shape, ("query", "key", "value", "output", "gate", "up", "down")))
    return family.layers * (weights // 4 + 7 * 32 + 8 * family.hidden) + 4 * family.vocabulary * family.hidden


def test_size_of_the_published_falcon_e():
    """tiiuae/Falcon-E-1B-Instruct-GGUF: 666 MB."""
    assert 664e6 < gguf_bytes_of(FAMILIES["falcon-e-1b"]) < 666e6
