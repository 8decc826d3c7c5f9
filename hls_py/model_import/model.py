"""A model folder as packing sees it: config, and each layer's tensors when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hls_py.errors import TellmeError
from hls_py.model_import.checkpoint import Checkpoint
from hls_py.model_import.config import ModelConfig, read_config
from hls_py.model_import.ternary import TernaryMatrix, read_ternary

ATTENTION_SUB_NORMS = ("self_attn.attn_sub_norm", "self_attn.inner_attn_ln")
FFN_SUB_NORMS = ("mlp.ffn_sub_norm", "mlp.ffn_layernorm")


@dataclass(frozen=True)
class Layer:
    """Tensors of one decoder layer; gains float32, sub-norms None where the model has none."""

    input_gain: np.ndarray
    query: TernaryMatrix
    key: TernaryMatrix
    value: TernaryMatrix
    attention_gain: np.ndarray | None
    output: TernaryMatrix
    post_attention_gain: np.ndarray
    gate: TernaryMatrix
    up: TernaryMatrix
    ffn_gain: np.ndarray | None
    down: TernaryMatrix


class Model:
    """Lazily read model; every access checks names, shapes and values.

    Raises :class:`TellmeError` on construction when config or files can't be used or a tensor is missing, so that a
    long packing run doesn't fail half way for a reason that was there from the start.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.config: ModelConfig = read_config(folder)
        self.checkpoint = Checkpoint(folder)
        c = self.config
        self._attention_sub_norm = self._find("model.layers.0.", ATTENTION_SUB_NORMS)
        self._ffn_sub_norm = self._find("model.layers.0.", FFN_SUB_NORMS)
        missing = [name for name in self._needed() if name not in self.checkpoint]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise TellmeError(f"{folder}: tensor {missing[0]}{more} missing from the checkpoint")
        if f"model.layers.{c.layers}.input_layernorm.weight" in self.checkpoint:
            raise TellmeError(f"{folder}: the checkpoint has more layers than the {c.layers} of config.json")
        if not c.ternary_declared:
            raise TellmeError(f"{folder}: nothing in config.json says that this {c.model_type} model is ternary")
        for name in self.checkpoint.names():
            if name.endswith(".bias"):
                raise TellmeError(f"{folder}: tensor {name}: biases are not supported")
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                raise TellmeError(f"{folder}: tensor {name}: QK-norm is not supported yet")

    @property
    def has_attention_sub_norm(self) -> bool:
        return self._attention_sub_norm is not None

    @property
    def has_ffn_sub_norm(self) -> bool:
        return self._ffn_sub_norm is not None

    def _find(self, prefix: str, names: tuple[str, ...]) -> str | None:
        return next((n for n in names if f"{prefix}{n}.weight" in self.checkpoint), None)

    def _needed(self) -> list[str]:
        names = ["model.embed_tokens.weight", "model.norm.weight"]
        if not self.config.tied_head:
            names.append("lm_head.weight")
        parts = ["input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj",
                 "self_attn.v_proj",
                 "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
        parts += [n for n in (self._attention_sub_norm, self._ffn_sub_norm) if n]
        names += [f"model.layers.{i}.{part}.weight" for i in range(self.config.layers) for part in parts]
        return names

    def layer(self, index: int) -> Layer:
        c = self.config
        prefix = f"model.layers.{index}."
        q_width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim

        def matrix(part: str, outputs: int, inputs: int) -> TernaryMatrix:
            return read_ternary(self.checkpoint, prefix + part, (outputs, inputs), c.linear_class)

        def gain(part: str, width: int) -> np.ndarray:
            return self.checkpoint.float_tensor(f"{prefix}{part}.weight", (width,))

        return Layer(
            input_gain=gain("input_layernorm", c.hidden_size),
            query=matrix("self_attn.q_proj", q_width, c.hidden_size),
            key=matrix("self_attn.k_proj", kv_width, c.hidden_size),
            value=matrix("self_attn.v_proj", kv_width, c.hidden_size),
            attention_gain=gain(self._attention_sub_norm, q_width) if self._attention_sub_norm else None,
            output=matrix("self_attn.o_proj", c.hidden_size, q_width),
            post_attention_gain=gain("post_attention_layernorm", c.hidden_size),
            gate=matrix("mlp.gate_proj", c.intermediate_size, c.hidden_size),
            up=matrix("mlp.up_proj", c.intermediate_size, c.hidden_size),
            ffn_gain=gain(self._ffn_sub_norm, c.intermediate_size) if self._ffn_sub_norm else None,
            down=matrix("mlp.down_proj", c.hidden_size, c.intermediate_size),
        )

    def layer_input_gain(self, index: int) -> np.ndarray:
        """The input norm's gains of a layer, without its matrices."""
        name = f"model.layers.{index}.input_layernorm.weight"
        return self.checkpoint.float_tensor(name, (self.config.hidden_size,))

    def final_gain(self) -> np.ndarray:
        return self.checkpoint.float_tensor("model.norm.weight", (self.config.hidden_size,))

    def embedding(self) -> np.ndarray:
        """float32 [vocabulary, hidden]."""
        return self.checkpoint.float_tensor("model.embed_tokens.weight", (self.config.vocabulary,
                                                                          self.config.hidden_size))

    def head(self) -> np.ndarray:
        """float32 [vocabulary, hidden]; the embedding where the head is tied."""
        if self.config.tied_head:
            return self.embedding()
        return self.checkpoint.float_tensor("lm_head.weight", (self.config.vocabulary, self.config.hidden_size))
