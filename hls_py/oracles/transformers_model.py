"""Hugging Face transformers' own models, in float32 on the CPU.

A packed checkpoint is loaded by transformers itself. Full-precision masters (which transformers would take for a dense
Llama) are loaded into its BitNet with its AutoBitLinear, which quantises them; what it can't read (GGUF, floats that
are ternary already) is read by this project and only computed by transformers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hls_py.errors import TellmeError
from hls_py.golden.machine.recorder import EMBEDDING
from hls_py.model_import.model import Model
from hls_py.oracles.oracle import Blocks

OLD_NAMES = {"inner_attn_ln": "attn_sub_norm", "ffn_layernorm": "ffn_sub_norm"}
PROJECTIONS = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
               "output": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
NOT_SETTINGS = ("architectures", "model_type", "quantization_config", "auto_map", "torch_dtype", "dtype",
                "transformers_version")


def import_torch() -> Any:
    """torch, with what transformers needs set; raises :class:`TellmeError` when either isn't installed."""
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # its activation quantisers are decorated with torch.compile
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import torch
        from transformers.utils import logging
    except ImportError:
        raise TellmeError("verify needs torch and transformers; install the extra: "
                          "pip install 'tellme[oracles]'") from None
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return torch


class TransformersModel:
    """A checkpoint as transformers computes it.

    Raises :class:`TellmeError` when torch or transformers are not installed, or have no such model.
    """

    name = "transformers (float32)"

    def __init__(self, path: Path, i2s_layout: str | None = None):
        self.torch = import_torch()
        model = Model(path, i2s_layout)
        self.config = model.config
        if self._reads(path):
            from transformers import AutoModelForCausalLM
            loaded = AutoModelForCausalLM.from_pretrained(path, dtype=self.torch.float32, local_files_only=True)
        elif model.config.masters:
            loaded = self._empty(model, _settings(path), online=True)
            self._load_masters(loaded, path)
        else:
            loaded = self._empty(model, _settings(path) if path.is_dir() else {}, online=False)
            self._load_parts(loaded, model)
        self.model = loaded.eval()
        self._use(self.torch.float32)

    def in_float64(self) -> TransformersModel:
        """The same from now on in float64: how much its own rounding moves its logits."""
        self._use(self.torch.float64)
        return self

    def _use(self, dtype: Any) -> None:
        # Its packed layers stay bfloat16 whatever dtype says, and PreTrainedModel.to refuses quantised models.
        self.torch.nn.Module.to(self.model, dtype)
        for module in self.model.modules():
            if type(module).__name__ == "BitLinear":
                module.dtype = dtype  # else it multiplies in bfloat16

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """float32 [sequences, n, vocabulary] of token ids [sequences, n], each sequence by itself."""
        with self.torch.no_grad():
            return np.stack([self.model(self.torch.tensor(row[None])).logits[0].numpy() for row in tokens])

    def logits_and_blocks(self, tokens: np.ndarray) -> tuple[np.ndarray, Blocks]:
        """Logits, and what every block puts out, rows of all sequences one after the other."""
        seen: dict[str, list[np.ndarray]] = {}
        with self._watched(seen):
            logits = self.logits(tokens)
        blocks = {name: np.concatenate(parts) for name, parts in seen.items()}
        return logits, blocks

    def layer(self, index: int) -> Any:
        """The decoder layer as a torch module."""
        return self.model.model.layers[index]

    def projection(self, layer: int, part: str) -> Any:
        """The module of one of PROJECTIONS."""
        return self.layer(layer).get_submodule(PROJECTIONS[part])

    # ---- loading ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _reads(path: Path) -> bool:
        """Whether the config tells transformers itself that the weights are BitNet's."""
        if not path.is_dir():
            return False
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return config.get("quantization_config", {}).get("quant_method") == "bitnet"

    def _empty(self, model: Model, settings: dict[str, Any], online: bool) -> Any:
        """transformers' BitNet (with sub-norms) or Llama (without), its projections AutoBitLinear."""
        import transformers
        from transformers.integrations.bitnet import AutoBitLinear

        c = model.config
        if model.has_attention_sub_norm != model.has_ffn_sub_norm:
            raise TellmeError("transformers has no model with one sub-norm a layer")
        given = {**settings, "hidden_size": c.hidden_size, "num_hidden_layers": c.layers,
                 "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim,
                 "intermediate_size": c.intermediate_size, "vocab_size": c.vocabulary,
                 "hidden_act": "silu" if c.activation == "silu" else "relu2", "rms_norm_eps": c.norm_epsilon,
                 "rope_theta": c.rope.theta, "max_position_embeddings": c.max_positions,
                 "tie_word_embeddings": c.tied_head, "attention_bias": False}
        kind = "BitNet" if model.has_attention_sub_norm else "Llama"
        empty = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**given))
        for layer in empty.model.layers:
            for name in PROJECTIONS.values():
                old = layer.get_submodule(name)
                layer.set_submodule(name, AutoBitLinear(old.in_features, old.out_features, bias=False,
                                                        online_quant=online))
        return empty

    def _load_masters(self, empty: Any, path: Path) -> None:
        from safetensors.torch import load_file

        state = {}
        for file in sorted(path.glob("*.safetensors")):
            for name, tensor in load_file(file).items():
                for old, new in OLD_NAMES.items():
                    name = name.replace(old, new)
                state[name] = tensor.float()
        missing, unexpected = empty.load_state_dict(state, strict=False)
        missing = [name for name in missing if not (name == "lm_head.weight" and self.config.tied_head)]
        if missing or unexpected:
            raise TellmeError(f"transformers' BitNet lacks {', '.join(missing) or 'nothing'} and doesn't know "
                              f"{', '.join(unexpected) or 'nothing'}")
        empty.tie_weights()

    def _load_parts(self, empty: Any, model: Model) -> None:
        torch = self.torch
        body = empty.model
        with torch.no_grad():
            body.embed_tokens.weight.copy_(torch.from_numpy(model.embedding()))
            if not self.config.tied_head:
                empty.lm_head.weight.copy_(torch.from_numpy(model.head()))
            body.norm.weight.copy_(torch.from_numpy(np.asarray(model.final_gain())))
            body.rotary_emb.inv_freq = torch.from_numpy(self.config.rope.frequencies(self.config.head_dim))
            for index, layer in enumerate(body.layers):
                parts = model.layer(index)
                for part, name in PROJECTIONS.items():
                    matrix = getattr(parts, part)
                    projection = layer.get_submodule(name)
                    projection.weight.copy_(torch.from_numpy(matrix.codes.astype(np.float32)))
                    projection.weight_scale.fill_(float(matrix.scale))
                for gain, name in (("input_gain", "input_layernorm"), ("attention_gain", "self_attn.attn_sub_norm"),
                                   ("post_attention_gain", "post_attention_layernorm"),
                                   ("ffn_gain", "mlp.ffn_sub_norm")):
                    values = getattr(parts, gain)
                    if values is not None:
                        layer.get_submodule(name).weight.copy_(torch.from_numpy(values))
        empty.tie_weights()

    # ---- watching ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _watched(self, seen: dict[str, list[np.ndarray]]) -> Iterator[None]:
        hooks = []

        def note(name: str, rows: Any) -> None:
            seen.setdefault(name, []).append(rows.reshape(-1, rows.shape[-1]).numpy().copy())

        def reads(module: Any, name: str) -> None:
            hooks.append(module.register_forward_pre_hook(lambda _, inputs: note(name, inputs[0])))

        layers = self.model.model.layers
        for index, layer in enumerate(layers):
            attention, mlp = layer.self_attn, layer.mlp
            # A layer's input may come as a keyword; its norm's never does.
            reads(layer.input_layernorm, f"{index - 1}.residual" if index else f"0.{EMBEDDING}")
            reads(layer.post_attention_layernorm, f"{index}.attention_residual")
            reads(getattr(attention, "attn_sub_norm", attention.o_proj), f"{index}.attention")
            reads(getattr(mlp, "ffn_sub_norm", mlp.down_proj), f"{index}.gated")
            self._watch_heads(attention, index, hooks, note)
        reads(self.model.model.norm, f"{len(layers) - 1}.residual")
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _watch_heads(self, attention: Any, index: int, hooks: list[Any], note: Any) -> None:
        """Queries and keys behind RoPE, by the angles that the model hands its attention."""
        d = self.config.head_dim
        angles: dict[str, Any] = {}

        def keep(_: Any, inputs: Any, keywords: Any) -> None:
            angles["cos"], angles["sin"] = keywords["position_embeddings"]

        def rotated(name: str) -> Any:
            def hook(_: Any, __: Any, projected: Any) -> None:
                heads = projected.reshape(*projected.shape[:-1], -1, d)
                cos, sin = angles["cos"][..., None, :], angles["sin"][..., None, :]
                half = self.torch.cat([-heads[..., d // 2:], heads[..., :d // 2]], dim=-1)
                note(f"{index}.{name}", (heads * cos + half * sin).reshape(projected.shape))
            return hook

        hooks.append(attention.register_forward_pre_hook(keep, with_kwargs=True))
        hooks.append(attention.q_proj.register_forward_hook(rotated("query")))
        hooks.append(attention.k_proj.register_forward_hook(rotated("key")))
        hooks.append(attention.v_proj.register_forward_hook(
            lambda _, __, projected: note(f"{index}.value", projected)))


def _settings(path: Path) -> dict[str, Any]:
    """What config.json says beside what :class:`ModelConfig` knows."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if name not in NOT_SETTINGS}


def transformers_logits(path: Path, tokens: np.ndarray) -> np.ndarray:
    """float32 [sequences, n, vocabulary] of token ids [sequences, n], each sequence by itself."""
    return TransformersModel(path).logits(tokens)
