"""config.json → ModelConfig, or a refusal that names what isn't supported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hls_py.errors import TellmeError

ACTIVATIONS = {"silu": "silu", "swish": "silu", "relu2": "relu_squared", "relu_squared": "relu_squared"}
"""hidden_act of a config → name of the hardware's gated activation."""

SUPPORTED_MODEL_TYPES = ("bitnet", "llama")


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions and choices of one model, as its config states them."""

    model_type: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocabulary: int
    max_positions: int
    activation: str
    """'silu' or 'relu_squared'."""
    norm_epsilon: float
    rope_theta: float
    tied_head: bool
    linear_class: str
    """'autobitlinear' (weight_scale multiplies) or 'bitlinear' (weight_scale divides)."""
    ternary_declared: bool
    """The config says that the linear layers are ternary (by quantisation config or class)."""

    @property
    def queries_per_kv(self) -> int:
        return self.heads // self.kv_heads


def read_config(folder: Path) -> ModelConfig:
    """Parse ``folder``/config.json.

    Raises :class:`TellmeError` for a missing or unreadable file, a model type or feature that isn't supported, or sizes
    that contradict each other.
    """
    path = folder / "config.json"
    if not folder.is_dir():
        raise TellmeError(f"{folder} is not a folder; give a model folder with config.json and model.safetensors")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TellmeError(f"{folder} has no config.json; give a model folder in Hugging Face form") from None
    except (OSError, ValueError) as error:
        raise TellmeError(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(raw, dict):
        raise TellmeError(f"{path} holds no JSON object")
    return parse_config(raw, str(path))


def parse_config(raw: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """As :func:`read_config`, from the parsed object; ``where`` names it in messages."""
    model_type = raw.get("model_type")
    architectures = raw.get("architectures") or []
    if not isinstance(architectures, list):
        raise TellmeError(f"{where}: architectures is {architectures!r}; a list of names is needed")
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise TellmeError(
            f"{where}: model_type {model_type!r} is not supported; supported are {', '.join(SUPPORTED_MODEL_TYPES)}")
    _refuse_features(raw, where)

    quantisation = _mapping(raw, "quantization_config", where)
    method = quantisation.get("quant_method")
    if method not in (None, "bitnet"):
        raise TellmeError(f"{where}: quant_method {method!r} is not ternary; only 'bitnet' is supported")
    if quantisation.get("use_rms_norm"):
        raise TellmeError(f"{where}: use_rms_norm (a norm inside every projection) is not supported")
    linear_class = quantisation.get("linear_class", "autobitlinear" if model_type == "bitnet" else "bitlinear")
    if linear_class not in ("autobitlinear", "bitlinear"):
        raise TellmeError(f"{where}: linear_class {linear_class!r} is unknown; known are autobitlinear and bitlinear")
    declared = method == "bitnet" or model_type == "bitnet" or any("bitnet" in str(a).lower() for a in architectures)

    hidden = _size(raw, "hidden_size", where)
    heads = _size(raw, "num_attention_heads", where)
    kv_heads = _size(raw, "num_key_value_heads", where, default=heads)
    head_dim = _size(raw, "head_dim", where, default=hidden // heads)
    if heads % kv_heads:
        raise TellmeError(f"{where}: {heads} attention heads are not a multiple of {kv_heads} KV heads")
    if raw.get("head_dim") is None and hidden % heads:
        raise TellmeError(f"{where}: hidden_size {hidden} is not a multiple of {heads} heads and head_dim is not given")
    if head_dim % 2:
        raise TellmeError(f"{where}: head_dim {head_dim} is odd; rotary embeddings need pairs")
    activation = raw.get("hidden_act", "relu2" if model_type == "bitnet" else "silu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise TellmeError(f"{where}: hidden_act {activation!r} is not supported; supported are {known}")
    return ModelConfig(
        model_type=model_type,
        hidden_size=hidden,
        layers=_size(raw, "num_hidden_layers", where),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=_size(raw, "intermediate_size", where),
        vocabulary=_size(raw, "vocab_size", where),
        max_positions=_size(raw, "max_position_embeddings", where, default=2048),
        activation=ACTIVATIONS[activation],
        norm_epsilon=_number(raw, "rms_norm_eps", where, 1e-5 if model_type == "bitnet" else 1e-6),
        rope_theta=_rope_theta(raw, where),
        tied_head=bool(raw.get("tie_word_embeddings", False)),
        linear_class=linear_class,
        ternary_declared=declared,
    )


def _rope_theta(raw: dict[str, Any], where: str) -> float:
    """Base of the rotary embedding; newer configs keep it in ``rope_parameters``."""
    parameters = _mapping(raw, "rope_parameters", where)
    kind = parameters.get("rope_type", "default")
    if kind != "default":
        raise TellmeError(f"{where}: rope_type {kind!r} is not supported yet; only the plain rotary embedding is")
    if "rope_theta" in parameters:
        return _number(parameters, "rope_theta", where, 1e4)
    return _number(raw, "rope_theta", where, 1e4)


def _refuse_features(raw: dict[str, Any], where: str) -> None:
    for key in ("attention_bias", "mlp_bias"):
        if raw.get(key):
            raise TellmeError(f"{where}: {key} is not supported")
    scaling = raw.get("rope_scaling")
    if scaling:
        kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else scaling
        if kind != "default":
            raise TellmeError(f"{where}: rope_scaling {kind!r} is not supported yet; only the plain one is")
    if raw.get("sliding_window") and raw.get("use_sliding_window", True):
        raise TellmeError(f"{where}: sliding_window is not supported yet")


def _mapping(raw: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """The object under ``key``, empty where there is none."""
    value = raw.get(key) or {}
    if not isinstance(value, dict):
        raise TellmeError(f"{where}: {key} is {value!r}; an object is needed")
    return value


def _size(raw: dict[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = raw.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 24:
        raise TellmeError(f"{where}: {key} is {value!r}; a positive integer is needed")
    return value


def _number(raw: dict[str, Any], key: str, where: str, default: float) -> float:
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise TellmeError(f"{where}: {key} is {value!r}; a positive number is needed")
    return float(value)
