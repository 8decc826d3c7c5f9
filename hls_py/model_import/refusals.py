"""What isn't supported, by the name a user knows it by; found in configs, metadata and tensor names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hls_py.errors import TellmeError


class Unsupported(TellmeError):
    """A model that can't run; ``items`` has every reason that was found, the message the first."""

    def __init__(self, where: str, items: Iterable[str]):
        self.where = where
        self.items = list(dict.fromkeys(items))
        more = f" (and {len(self.items) - 1} more; `tellme-hls check` lists them)" if len(self.items) > 1 else ""
        super().__init__(f"{where}: {self.items[0]}{more}")


MODEL_TYPES = {
    "qwen3": "QK-norm, and group-wise scales where its weights are ternary, are not supported yet",
    "qwen35": "gated DeltaNet layers are not supported",
    "qwen3_5": "gated DeltaNet layers are not supported",
    "qwen3_5_text": "gated DeltaNet layers are not supported",
    "qwen3_next": "gated DeltaNet layers are not supported",
    "qwen3next": "gated DeltaNet layers are not supported",
    "hgrn_bit": "MatMul-free token mixing (HGRN) is not supported",
    "hgrn": "MatMul-free token mixing (HGRN) is not supported",
    "minicpm": "scaled residuals and embeddings (MiniCPM) are not supported",
    "gemma3": "norms after attention and FFN, and QK-norm, are not supported",
    "gemma3_text": "norms after attention and FFN, and QK-norm, are not supported",
}
"""Families that people bring, and what they would need; any other model_type is refused without a reason."""

_TRUTHY = {
    "attention_bias": "attention_bias (a bias in every attention projection) is not supported",
    "mlp_bias": "mlp_bias is not supported",
    "use_bias": "use_bias is not supported",
    "use_qk_norm": "QK-norm (use_qk_norm) is not supported yet",
    "qk_norm": "QK-norm (qk_norm) is not supported yet",
    "qk_layernorm": "QK-norm (qk_layernorm) is not supported yet",
    "attn_logit_softcapping": "attn_logit_softcapping is not supported",
    "final_logit_softcapping": "final_logit_softcapping is not supported",
    "num_experts": "mixture of experts (num_experts) is not supported",
    "num_local_experts": "mixture of experts (num_local_experts) is not supported",
    "linear_num_key_heads": "gated DeltaNet layers (linear_num_key_heads) are not supported",
}
_MUST_BE = {
    "weight_bits": (1, "weights of {} bits are not ternary"),
    "input_bits": (8, "activations of {} bits are not supported; 8 are"),
    "partial_rotary_factor": (1, "rotary embeddings on a part of each head (partial_rotary_factor {}) are not "
                                 "supported"),
    "scale_emb": (1, "scaled embeddings (scale_emb {}) are not supported"),
    "scale_depth": (1, "scaled residuals (scale_depth {}) are not supported"),
    "dim_model_base": (None, "scaled logits (dim_model_base {}) are not supported"),
    "logit_scale": (1, "scaled logits (logit_scale {}) are not supported"),
    "embedding_multiplier": (1, "scaled embeddings (embedding_multiplier {}) are not supported"),
    "residual_multiplier": (1, "scaled residuals (residual_multiplier {}) are not supported"),
    "attention_multiplier": (None, "attention_multiplier {} is not supported"),
}
_ROTATED = re.compile(r"hadamard|(^|_)rotat(ed|ion)(_|$)|walsh|quarot|spinquant", re.IGNORECASE)
_GROUPS = re.compile(r"^(group_size|weight_group_size|weight_block_size|block_size|groupsize|q_group_size)$")


def config_items(raw: dict[str, Any]) -> list[str]:
    """Features that a config (or its quantisation config) asks for and that aren't there."""
    items = [text for key, text in _TRUTHY.items() if raw.get(key)]
    for key, (allowed, text) in _MUST_BE.items():
        value = raw.get(key)
        if value is not None and value != allowed:
            items.append(text.format(value))
    if raw.get("sliding_window") and raw.get("use_sliding_window", True):
        items.append("sliding_window is not supported yet")
    kinds = raw.get("layer_types")
    if isinstance(kinds, list):
        items += [f"layers of type {kind!r} are not supported"
                  for kind in sorted({str(k) for k in kinds} - {"full_attention"})]
    for key, value in raw.items():
        if value not in (None, False, 0, "", "none", "None") and _ROTATED.search(str(key)):
            items.append(f"rotated weights ({key}) are not supported: they need an online Hadamard transform")
    return items


def quantisation_items(quantisation: dict[str, Any]) -> list[str]:
    """Features of a quantisation config that aren't there."""
    items = []
    method = quantisation.get("quant_method")
    if method not in (None, "bitnet"):
        items.append(f"quant_method {method!r} is not ternary; only 'bitnet' is supported")
    if quantisation.get("use_rms_norm"):
        items.append("use_rms_norm (a norm inside every projection) is not supported")
    for key, value in quantisation.items():
        if _GROUPS.match(str(key)) and value not in (None, -1, 0):
            items.append(f"group-wise scales ({key} {value}) are not supported yet")
        if value not in (None, False, 0, "", "none", "None") and _ROTATED.search(str(key)):
            items.append(f"rotated weights ({key}) are not supported: they need an online Hadamard transform")
    kept = quantisation.get("modules_to_not_convert") or []
    if isinstance(kept, list):
        items += [f"{name} in full precision (modules_to_not_convert) is not supported" for name in kept
                  if isinstance(name, str) and re.search(r"_proj|layers|mlp|self_attn", name)]
    return items


_TENSORS = (
    (re.compile(r"\.(linear_attn|A_log|dt_bias|conv1d|ssm_\w+)(\.|$)|\.ssm_"),
     "gated DeltaNet or state-space layers are not supported"),
    (re.compile(r"\.attn\.(i_proj|f_proj|g_proj|g_norm)"), "MatMul-free token mixing (HGRN) is not supported"),
    (re.compile(r"(q|k|attn_q|attn_k)_norm\.weight$"), "QK-norm is not supported yet"),
    (re.compile(r"(_proj|attn_[qkv]|attn_output|ffn_(gate|up|down))\.(\w*norm\w*)(\.|$)|_proj\.0\.weight$"),
     "a norm inside a projection is not supported"),
    (re.compile(r"\.bias$"), "biases are not supported"),
    (re.compile(r"rotation|hadamard", re.IGNORECASE), "rotated weights are not supported"),
    (re.compile(r"_proj\.(scales|weight_scales|weight_scale_inv|qweight|qzeros|g_idx|wscales)$"),
     "group-wise scales are not supported yet"),
    (re.compile(r"block_sparse_moe|\.experts\.|_exps\."), "mixture of experts is not supported"),
    (re.compile(r"(pre|post)_feedforward_layernorm|post_(attention|ffw|ffn)_norm\.weight$"),
     "norms after attention or FFN are not supported"),
)


def tensor_items(names: Iterable[str]) -> list[str]:
    """Reasons why a model with these tensors, none of which it would use, can't run; one a kind, with an example."""
    found: dict[str, list[str]] = {}
    for name in names:
        reason = next((text for pattern, text in _TENSORS if pattern.search(name)),
                      "it is not part of any model that is supported")
        found.setdefault(reason, []).append(name)
    return [f"tensor {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
            for reason, names in found.items()]
