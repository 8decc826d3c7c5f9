"""Models of any dimensions with random ternary weights, in Hugging Face form, to size a board for a model one lacks.

Weights are drawn as trained ones are distributed (40 % zeros), and a few gains stand out, so that values and
cycles are those of a real model; what it says is noise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ZERO_SHARE = 0.4


@dataclass(frozen=True)
class RandomModel:
    """Dimensions of a random model; ``write`` makes a folder of it."""

    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int = 1
    vocabulary: int = 256
    activation: str = "silu"
    sub_norms: bool = True
    tied: bool = True
    max_positions: int = 2048
    seed: int = 1

    def config(self) -> dict[str, Any]:
        # A BitNet has both sub-norms; without them, ternary models are published as Llamas.
        name, model_type = ("BitNet", "bitnet") if self.sub_norms else ("Llama", "llama")
        return {
            "architectures": [f"{name}ForCausalLM"], "model_type": model_type, "hidden_size": self.hidden,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim, "intermediate_size": self.ffn, "vocab_size": self.vocabulary,
            "hidden_act": self.activation, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "max_position_embeddings": self.max_positions, "tie_word_embeddings": self.tied,
            "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                    "quantization_mode": "offline"},
        }

    def tensors(self) -> dict[str, np.ndarray]:
        import ml_dtypes

        rng = np.random.default_rng(self.seed)
        bfloat16 = ml_dtypes.bfloat16

        def gains(width: int) -> np.ndarray:
            # A few channels stand out, as in trained models.
            values = rng.normal(1, 0.2, width) * np.where(rng.random(width) < 0.03, 6, 1)
            return values.astype(bfloat16)

        out: dict[str, np.ndarray] = {}

        def ternary(name: str, outputs: int, inputs: int) -> None:
            side = (1 - ZERO_SHARE) / 2
            codes = rng.choice(np.array([-1, 0, 1], np.int8), (outputs, inputs), p=[side, ZERO_SHARE, side])
            rows = -(-outputs // 4)
            padded = np.ones((4 * rows, inputs), np.uint8)
            padded[:outputs] = (codes + 1).astype(np.uint8)
            fields = padded.reshape(4, rows, inputs)
            out[f"{name}.weight"] = sum(fields[i] << 2 * i for i in range(4)).astype(np.uint8)
            out[f"{name}.weight_scale"] = np.array([1.2 / np.sqrt(inputs)], bfloat16)

        out["model.embed_tokens.weight"] = rng.normal(0, 1, (self.vocabulary, self.hidden)).astype(bfloat16)
        out["model.norm.weight"] = gains(self.hidden)
        if not self.tied:
            out["lm_head.weight"] = rng.normal(0, 0.1, (self.vocabulary, self.hidden)).astype(bfloat16)
        q_width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for i in range(self.layers):
            prefix = f"model.layers.{i}."
            out[prefix + "input_layernorm.weight"] = gains(self.hidden)
            out[prefix + "post_attention_layernorm.weight"] = gains(self.hidden)
            if self.sub_norms:
                out[prefix + "self_attn.attn_sub_norm.weight"] = gains(q_width)
                out[prefix + "mlp.ffn_sub_norm.weight"] = gains(self.ffn)
            ternary(prefix + "self_attn.q_proj", q_width, self.hidden)
            ternary(prefix + "self_attn.k_proj", kv_width, self.hidden)
            ternary(prefix + "self_attn.v_proj", kv_width, self.hidden)
            ternary(prefix + "self_attn.o_proj", self.hidden, q_width)
            ternary(prefix + "mlp.gate_proj", self.ffn, self.hidden)
            ternary(prefix + "mlp.up_proj", self.ffn, self.hidden)
            ternary(prefix + "mlp.down_proj", self.hidden, self.ffn)
        return out

    @property
    def ternary_weights(self) -> int:
        q_width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * self.hidden * (2 * (q_width + kv_width) + 3 * self.ffn)

    def write(self, folder: Path) -> Path:
        """Make ``folder`` with config.json and model.safetensors; returns it."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config(), indent=1) + "\n", encoding="utf-8")
        save_file(self.tensors(), folder / "model.safetensors")
        return folder
