"""config.json → ModelConfig, or a refusal that names everything that isn't supported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hls_py.errors import TellmeError
from hls_py.model_import.refusals import MODEL_TYPES, Unsupported, config_items, quantisation_items
from hls_py.model_import.rope import Llama3Scaling, Rope

ACTIVATIONS = {"silu": "silu", "swish": "silu", "relu2": "relu_squared", "relu_squared": "relu_squared"}
"""hidden_act of a config → name of the hardware's gated activation."""



@dataclass(frozen=True)
class _Defaults:
    """What a config means that leaves a key out: transformers' defaults of its model type."""

    activation: str
    norm_epsilon: float
    rope_theta: float


_DEFAULTS = {"bitnet": _Defaults("relu2", 1e-5, 5e5), "llama": _Defaults("silu", 1e-6, 1e4)}
MAX_POSITIONS = 1 << 20
"""Bounds the rotary table that a config can ask for."""

MAX_ANGLE = 1 << 24
"""Radians; beyond them neighbouring float32 angles are more than one apart."""


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
    rope: Rope
    tied_head: bool
    linear_class: str | None
    """'autobitlinear' (weight_scale multiplies), 'bitlinear' (weight_scale divides), None: nothing says so."""
    masters: bool
    """Float matrices are full-precision masters, to be quantised by absmean; otherwise they must be ternary."""

    @property
    def queries_per_kv(self) -> int:
        return self.heads // self.kv_heads

    @property
    def rope_theta(self) -> float:
        return self.rope.theta

    @property
    def needs_sub_norms(self) -> bool:
        """Every layer of its class has both sub-norms: one that a checkpoint lacks was lost. A llama's tensors tell."""
        return self.model_type != "llama"

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    def check(self, where: str) -> None:
        """Raises :class:`TellmeError` when the sizes contradict each other."""
        if self.heads % self.kv_heads:
            raise TellmeError(
                f"{where}: {self.heads} attention heads are not a multiple of {self.kv_heads} KV heads")
        if self.head_dim % 2:
            raise TellmeError(f"{where}: head_dim {self.head_dim} is odd; rotary embeddings need pairs")
        if self.norm_epsilon >= 1:
            raise TellmeError(f"{where}: the norms' epsilon is {self.norm_epsilon}; a small number is needed")
        if self.max_positions > MAX_POSITIONS:
            raise TellmeError(f"{where}: a context of {self.max_positions} positions; at most {MAX_POSITIONS} are "
                              "supported")
        if self.rope.fastest * self.max_positions > MAX_ANGLE:
            allowed = MAX_ANGLE / self.max_positions
            raise TellmeError(f"{where}: the rotary embedding turns by up to {self.rope.fastest:.4g} radians a "
                              f"position; over {self.max_positions} positions at most {allowed:.4g} are supported")


def read_config(folder: Path) -> ModelConfig:
    """Parse ``folder``/config.json.

    Raises :class:`TellmeError` for a missing or unreadable file, a model type or feature that isn't supported, or sizes
    that contradict each other.
    """
    path = folder / "config.json"
    if not folder.is_dir():
        raise TellmeError(f"{folder} is not a folder; give a model folder with config.json and model.safetensors, or "
                          "a .gguf file")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        file = next(iter(sorted(folder.glob("*.gguf"))), None)
        raise TellmeError(f"{folder} has no config.json; give " + (
            f"the file {file}" if file else "a model folder in Hugging Face form")) from None
    except (OSError, ValueError, RecursionError) as error:
        raise TellmeError(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(raw, dict):
        raise TellmeError(f"{path} holds no JSON object")
    return parse_config(raw, str(path))


def parse_config(raw: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """As :func:`read_config`, from the parsed object; ``where`` names it in messages.

    Raises :class:`Unsupported` with everything that isn't supported, before it looks at sizes.
    """
    model_type = raw.get("model_type")
    architectures = raw.get("architectures") or []
    if not isinstance(architectures, list):
        raise TellmeError(f"{where}: architectures is {architectures!r}; a list of names is needed")
    quantisation = _mapping(raw, "quantization_config", where)
    items = []
    if not isinstance(model_type, str) or model_type not in _DEFAULTS:
        known = MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None
        items.append(f"model_type {model_type!r} is not supported" + (
            f": {known}" if known else f"; supported are {', '.join(_DEFAULTS)}"))
    defaults = _DEFAULTS.get(str(model_type), _DEFAULTS["llama"])
    items += config_items(raw) + quantisation_items(quantisation)
    linear_class = _linear_class(quantisation, items)
    mode = quantisation.get("quantization_mode", "offline")
    if mode not in ("offline", "online"):
        items.append(f"quantization_mode {mode!r} is unknown; known are offline and online")
    activation = raw.get("hidden_act", defaults.activation)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        items.append(f"hidden_act {activation!r} is not supported; supported are {', '.join(ACTIVATIONS)}")
    rope = _rope(raw, where, defaults.rope_theta, items)
    if items:
        raise Unsupported(where, items)

    bitnet_class = model_type == "bitnet" or any("bitnet" in str(a).lower() for a in architectures)
    hidden = positive_size(raw, "hidden_size", where)
    heads = positive_size(raw, "num_attention_heads", where)
    if raw.get("head_dim") is None and hidden % heads:
        raise TellmeError(f"{where}: hidden_size {hidden} is not a multiple of {heads} heads and head_dim is not given")
    config = ModelConfig(
        model_type=str(model_type),
        hidden_size=hidden,
        layers=positive_size(raw, "num_hidden_layers", where),
        heads=heads,
        kv_heads=positive_size(raw, "num_key_value_heads", where, default=heads),
        head_dim=positive_size(raw, "head_dim", where, default=hidden // heads),
        intermediate_size=positive_size(raw, "intermediate_size", where),
        vocabulary=positive_size(raw, "vocab_size", where),
        max_positions=positive_size(raw, "max_position_embeddings", where, default=2048),
        activation=ACTIVATIONS[activation],
        norm_epsilon=positive_number(raw, "rms_norm_eps", where, defaults.norm_epsilon),
        rope=rope,
        tied_head=_flag(raw, "tie_word_embeddings", where),
        linear_class=linear_class if quantisation else None,
        masters=mode == "online" if quantisation else bitnet_class,
    )
    config.check(where)
    return config


def _linear_class(quantisation: dict[str, Any], items: list[str]) -> str:
    """What a quantisation config without one means is transformers' default, the older class, whose scale divides."""
    found = quantisation.get("linear_class", "bitlinear")
    if found not in ("autobitlinear", "bitlinear"):
        items.append(f"linear_class {found!r} is unknown; known are autobitlinear and bitlinear")
    return str(found)


def _rope(raw: dict[str, Any], where: str, default_theta: float, items: list[str]) -> Rope:
    """The rotary embedding; newer configs keep all of it in ``rope_parameters``, older ones in two places.

    Where a config has both, transformers reads ``rope_scaling``, and a base inside goes before one outside.
    """
    parameters = _mapping(raw, "rope_parameters", where)
    scaling = raw.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        items.append(f"rope_scaling {scaling!r} is not supported")
        scaling = {}
    name = "rope_scaling" if scaling else "rope_parameters"
    values = scaling or parameters
    theta = positive_number(values if "rope_theta" in values else raw, "rope_theta", where, default_theta)
    kind = values.get("rope_type", values.get("type", None if scaling else "default"))
    if values.get("partial_rotary_factor") not in (None, 1, 1.0):
        items.append("rotary embeddings on a part of each head (partial_rotary_factor) are not supported")
    if kind in ("default", "none"):
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, linear_factor=positive_number(values, "factor", f"{where}: {name}", None))
    if kind == "llama3":
        inner = f"{where}: {name}"
        factor, low, high = (positive_number(values, key, inner, None)
                             for key in ("factor", "low_freq_factor", "high_freq_factor"))
        llama3 = Llama3Scaling(factor, low, high, positive_size(values, "original_max_position_embeddings", inner))
        if llama3.high_frequency_factor <= llama3.low_frequency_factor:
            raise TellmeError(f"{inner}: high_freq_factor {llama3.high_frequency_factor} is not above low_freq_factor "
                              f"{llama3.low_frequency_factor}")
        return Rope(theta, llama3=llama3)
    items.append(f"rotary embedding {kind!r} ({name}) is not supported; supported are default, linear and llama3")
    return Rope(theta)


def _mapping(raw: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """The object under ``key``, empty where there is none."""
    value = raw.get(key) or {}
    if not isinstance(value, dict):
        raise TellmeError(f"{where}: {key} is {value!r}; an object is needed")
    return value


def _flag(raw: dict[str, Any], key: str, where: str) -> bool:
    value = raw.get(key) or False
    if not isinstance(value, bool):
        raise TellmeError(f"{where}: {key} is {value!r}; true or false is needed")
    return value


def positive_size(raw: dict[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = raw.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 24:
        raise TellmeError(f"{where}: {key} is {value!r}; a positive integer is needed")
    return value


def positive_number(raw: dict[str, Any], key: str, where: str, default: float | None) -> float:
    value = raw.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise TellmeError(f"{where}: {key} is {value!r}; a positive number is needed")
    return float(value)
