"""Small random models in Hugging Face form, for tests: any dimensions, realistic outliers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file


@dataclass(frozen=True)
class TinyModel:
    """Dimensions of a random model; ``write`` makes a folder of it."""

    hidden: int = 64
    layers: int = 1
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 96
    vocabulary: int = 67
    activation: str = "silu"
    sub_norms: bool = True
    tied: bool = True
    max_positions: int = 512
    seed: int = 1

    def config(self) -> dict[str, object]:
        return {
            "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_size": self.hidden,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim, "intermediate_size": self.ffn, "vocab_size": self.vocabulary,
            "hidden_act": self.activation, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "max_position_embeddings": self.max_positions, "tie_word_embeddings": self.tied,
            "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                    "quantization_mode": "offline"},
        }

    def tensors(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        bfloat16 = ml_dtypes.bfloat16

        def gains(width: int) -> np.ndarray:
            # A few channels stand out, as in trained models.
            values = rng.normal(1, 0.2, width) * np.where(rng.random(width) < 0.03, 6, 1)
            return values.astype(bfloat16)

        out: dict[str, np.ndarray] = {}

        def ternary(name: str, outputs: int, inputs: int) -> None:
            codes = rng.choice(np.array([-1, 0, 1], np.int8), (outputs, inputs), p=[0.3, 0.4, 0.3])
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
        for i in range(self.layers):
            prefix = f"model.layers.{i}."
            q_width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
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

    def write(self, folder: Path) -> Path:
        """Make ``folder`` with config.json and model.safetensors; returns it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config()), encoding="utf-8")
        save_file(self.tensors(), folder / "model.safetensors")
        return folder
