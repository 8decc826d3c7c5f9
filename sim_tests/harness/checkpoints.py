"""Random models in the shapes of the families that people bring, written in every format they come in.

Weights are Gaussian, and a few gains stand out where trained models of that structure have outliers (OUTLIER_GAINS).
Everything is drawn part by part from (seed, layer, part), so that real dimensions need no more memory than their
largest tensor.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

DTYPES: dict[str, Any] = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16, "fp32": np.float32}
MATRICES = ("query", "key", "value", "output", "gate", "up", "down")
HF = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "output": "self_attn.o_proj",
      "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj", "input_gain": "input_layernorm",
      "post_attention_gain": "post_attention_layernorm", "attention_gain": "self_attn.attn_sub_norm",
      "ffn_gain": "mlp.ffn_sub_norm"}
HF_OLD = {"attention_gain": "self_attn.inner_attn_ln", "ffn_gain": "mlp.ffn_layernorm"}
GGUF = {"query": "attn_q", "key": "attn_k", "value": "attn_v", "output": "attn_output", "gate": "ffn_gate",
        "up": "ffn_up", "down": "ffn_down", "input_gain": "attn_norm", "post_attention_gain": "ffn_norm",
        "attention_gain": "attn_sub_norm", "ffn_gain": "ffn_sub_norm"}
OUTLIER_GAINS = {True: ("attention_gain", "ffn_gain"), False: ("input_gain", "post_attention_gain")}
"""Gains that have channels which stand out, by whether the model has sub-norms.

With them: BitNet trained from nothing, whose q, k, v, gate and up read nearly Gaussian vectors, while output and down
projection read outliers (BitNet a4.8, arXiv 2411.04965; BitNet v2, arXiv 2504.18415; the demo model). Without: Llamas
made ternary, which have a Llama's outliers behind its input norms (docs/accuracy.md measures one).
"""
OUTLIER_SHARE, OUTLIER_FACTOR = 0.03, 6
SCORE_DEVIATION = 2.0
"""Of q·k/√d over the positions a row sees, about: trained models have 1 to 4 (docs/accuracy.md)."""


@dataclass(frozen=True)
class Family:
    """Dimensions and choices of a model, and how its publisher stores it."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    activation: str = "silu"
    sub_norms: bool = True
    tied: bool = True
    theta: float = 10000.0
    epsilon: float = 1e-5
    max_positions: int = 2048
    llama3: bool = False
    """RoPE frequencies scaled as in Llama 3.1."""
    model_type: str = "bitnet"
    storage: str = "packed"
    """'packed' uint8, 'masters' (full precision, quantised at load), 'ternary' (floats that are −s, 0, s)."""
    linear_class: str = "autobitlinear"
    dtype: str = "bf16"
    old_names: bool = False
    trained: bool = False
    """Channels matter alike in every matrix that touches them, as training makes it."""
    outliers_everywhere: bool = False
    """Outliers in every gain, the final norm's too, and scores as they come: harsher than trained models."""

    def reduced(self, vocabulary: int = 300, layers: int = 2, width: int = 256, heads: int = 4) -> Family:
        """The same choices at dimensions for tests: hidden and FFN multiples of 256 unless head_dim forbids it."""
        heads = min(heads, max(1, width // self.head_dim)) if self.head_dim > 64 else heads
        kv = max(1, heads * self.kv_heads // self.heads)
        return replace(self, hidden=width, heads=heads, kv_heads=kv, ffn=2 * width, vocabulary=vocabulary,
                       layers=layers, max_positions=160)


FAMILIES = {
    "bitnet-2b": Family(2560, 30, 20, 5, 128, 6912, 128256, "relu2", theta=5e5, max_positions=4096),
    "1bitllm-large": Family(1536, 24, 16, 16, 96, 4096, 32002, model_type="llama", storage="masters", dtype="fp16",
                            old_names=True),
    "1bitllm-3b": Family(3200, 26, 32, 32, 100, 8640, 32002, model_type="llama", storage="masters", dtype="fp16",
                         old_names=True),
    "falcon3-1b": Family(2048, 18, 8, 4, 256, 8192, 131072, sub_norms=False, tied=False, theta=1000042.0, epsilon=1e-6,
                         max_positions=8192, model_type="llama", linear_class="bitlinear"),
    "falcon3-10b": Family(3072, 40, 12, 4, 256, 23040, 131072, sub_norms=False, tied=False, theta=1000042.0,
                          epsilon=1e-6, max_positions=32768, model_type="llama", linear_class="bitlinear"),
    "falcon-e-1b": Family(2048, 24, 16, 2, 128, 9216, 32768, sub_norms=False, tied=False, theta=1e6,
                          max_positions=32768, model_type="llama", linear_class="bitlinear"),
    "llama3-8b": Family(4096, 32, 32, 8, 128, 14336, 128256, sub_norms=False, tied=False, theta=5e5,
                        max_positions=8192, model_type="llama", linear_class="bitlinear"),
}
"""Shapes of the families, from the config.json of microsoft/bitnet-b1.58-2B-4T (a copy's),
1bitLLM/bitnet_b1_58-large and -3B, tiiuae/Falcon3-1B-Instruct-1.58bit and -10B-Base-1.58bit,
HF1BitLLM/Llama3-8B-1.58-Sigmoid-k100-10B-tokens. Falcon-E's own was not at hand: a fine-tuned one's
(Arvyniitb/1bitModel), which agrees with the tensors (24 layers without sub-norms, head and embedding in 16 bits:
microsoft/BitNet, pull request 268) and the 666 MB of the published GGUF file."""


@dataclass(frozen=True)
class Synthetic:
    """The content of a random model of a family."""

    family: Family
    seed: int = 1

    def _rng(self, *what: object) -> np.random.Generator:
        return np.random.default_rng([self.seed, crc32(repr(what).encode())])

    def shape(self, part: str) -> tuple[int, int]:
        """[outputs, inputs] of a matrix; [width] twice of a gain."""
        f = self.family
        q, kv = f.heads * f.head_dim, f.kv_heads * f.head_dim
        return {"query": (q, f.hidden), "key": (kv, f.hidden), "value": (kv, f.hidden), "output": (f.hidden, q),
                "gate": (f.ffn, f.hidden), "up": (f.ffn, f.hidden), "down": (f.hidden, f.ffn),
                "attention_gain": (q, q), "ffn_gain": (f.ffn, f.ffn)}.get(part, (f.hidden, f.hidden))

    def _importance(self, layer: int, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Factors of a trained matrix's outputs and inputs, by the vector that each belongs to."""
        f = self.family

        def channels(what: str, width: int) -> np.ndarray:
            return np.exp(self._rng("importance", what).normal(0, 0.25, width)).astype(np.float32)

        hidden = channels("hidden", f.hidden)
        if part in ("gate", "up"):
            return channels(f"ffn {layer}", f.ffn), hidden
        if part == "down":
            return hidden, channels(f"ffn {layer}", f.ffn)
        value = channels(f"value {layer}", f.kv_heads * f.head_dim)
        if part == "value":
            return value, hidden
        if part == "output":
            by_head = value.reshape(f.kv_heads, 1, f.head_dim)
            return hidden, np.broadcast_to(by_head, (f.kv_heads, f.heads // f.kv_heads, f.head_dim)).reshape(-1)
        return np.ones(self.shape(part)[0], np.float32), hidden

    def _has_outliers(self, part: str) -> bool:
        return self.family.outliers_everywhere or part in OUTLIER_GAINS[self.family.sub_norms]

    def _sharpness(self) -> float:
        """Factor of scores that brings them to SCORE_DEVIATION."""
        if self.family.outliers_everywhere:
            return 1.0
        gains = 1.04 * (1 + self._has_outliers("input_gain") * OUTLIER_SHARE * (OUTLIER_FACTOR**2 - 1))  # mean square
        # Absmean leaves 0.69 of Gaussian weights, all as large as their mean magnitude, 0.8·1.4/√inputs.
        return SCORE_DEVIATION / (0.69 * (0.8 * 1.4)**2 * gains)

    def latent(self, layer: int, part: str) -> np.ndarray:
        """float32 weights before they are quantised."""
        shape = self.shape(part)
        size = 1.4 * (np.sqrt(self._sharpness()) if part in ("query", "key") else 1)
        weights = self._rng(layer, part).standard_normal(shape, np.float32) * np.float32(size / np.sqrt(shape[1]))
        if self.family.trained:
            outputs, inputs = self._importance(layer, part)
            weights *= outputs[:, None] * inputs
        return weights

    def codes(self, layer: int, part: str) -> np.ndarray:
        """int8 [outputs, inputs]."""
        weights = self.latent(layer, part)
        return np.clip(np.rint(weights / np.abs(weights).mean(dtype=np.float64)), -1, 1).astype(np.int8)

    def scale(self, layer: int, part: str) -> float:
        """A number that bfloat16 and float16 hold, and whose reciprocal they hold, too."""
        size = 1.1 / np.sqrt(self.shape(part)[1])
        if part in ("query", "key") and not self.family.outliers_everywhere:
            both = round(np.log2(self._sharpness() * size**2))  # of queries' and keys' together
            return float(2.0 ** (both // 2 if part == "query" else both - both // 2))
        return float(2.0 ** np.round(np.log2(size)))

    def gain(self, layer: int, part: str) -> np.ndarray:
        """float32 that bfloat16 and float16 hold; layer −1: the final norm's."""
        rng, width = self._rng(layer, part), self.shape(part)[0]
        values = rng.normal(1, 0.2, width)
        if self._has_outliers(part) and (layer >= 0 or self.family.outliers_everywhere):
            values *= np.where(rng.random(width) < OUTLIER_SHARE, OUTLIER_FACTOR, 1)
        return values.astype(ml_dtypes.bfloat16).astype(np.float32)

    def embedding(self) -> np.ndarray:
        """bfloat16 [vocabulary, hidden] that float16 holds, too."""
        return self._rows("embedding", 1.0)

    def head(self) -> np.ndarray:
        return self._rows("head", 0.1)

    def _rows(self, what: str, deviation: float) -> np.ndarray:
        values = self._rng(what).standard_normal((self.family.vocabulary, self.family.hidden), np.float32)
        values *= np.float32(deviation)
        values[np.abs(values) < 2.0**-13] = 0
        return values.astype(ml_dtypes.bfloat16)

    @property
    def gains(self) -> tuple[str, ...]:
        more = ("attention_gain", "ffn_gain") if self.family.sub_norms else ()
        return ("input_gain", "post_attention_gain", *more)

    # ---- Hugging Face -----------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        f = self.family
        config: dict[str, Any] = {
            "architectures": ["BitNetForCausalLM" if f.model_type == "bitnet" else "BitnetForCausalLM"
                              if f.storage == "masters" else "LlamaForCausalLM"],
            "model_type": f.model_type, "hidden_size": f.hidden, "num_hidden_layers": f.layers,
            "num_attention_heads": f.heads, "num_key_value_heads": f.kv_heads, "head_dim": f.head_dim,
            "intermediate_size": f.ffn, "vocab_size": f.vocabulary, "hidden_act": f.activation,
            "rms_norm_eps": f.epsilon, "rope_theta": f.theta, "max_position_embeddings": f.max_positions,
            "tie_word_embeddings": f.tied, "bos_token_id": 0, "eos_token_id": 1, "attention_bias": False,
            "torch_dtype": {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[f.dtype]}
        if f.llama3:
            config["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                      "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
        if f.storage == "packed":
            config["quantization_config"] = {"quant_method": "bitnet", "linear_class": f.linear_class,
                                             "quantization_mode": "offline"}
        elif f.storage == "masters" and f.model_type == "bitnet":
            config["quantization_config"] = {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                             "quantization_mode": "online"}
        return config

    def _hf_tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        f, dtype = self.family, DTYPES[self.family.dtype]
        names = {**HF, **(HF_OLD if f.old_names else {})}
        yield "model.embed_tokens.weight", self.embedding().astype(dtype)
        for layer in range(f.layers):
            for part in (*self.gains, *MATRICES):
                name = f"model.layers.{layer}.{names[part]}.weight"
                if part not in MATRICES:
                    yield name, self.gain(layer, part).astype(dtype)
                elif f.storage == "masters":
                    yield name, self.latent(layer, part).astype(dtype)
                elif f.storage == "ternary":
                    yield name, (self.codes(layer, part) * np.float32(self.scale(layer, part))).astype(dtype)
                else:
                    yield name, pack_uint8(self.codes(layer, part))
                    scale = self.scale(layer, part)
                    yield f"{name}_scale", np.array([scale if f.linear_class == "autobitlinear" else 1 / scale], dtype)
        yield "model.norm.weight", self.gain(-1, "input_gain").astype(dtype)
        if not f.tied:
            yield "lm_head.weight", self.head().astype(dtype)

    def write_huggingface(self, folder: Path, shards: int = 1) -> Path:
        """config.json and safetensors in ``folder``; returns it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config()), encoding="utf-8")
        tensors = dict(self._hf_tensors())
        if shards == 1:
            save_file(tensors, folder / "model.safetensors")
            return folder
        where = {name: f"model-{n % shards + 1:05}-of-{shards:05}.safetensors" for n, name in enumerate(tensors)}
        for file in sorted(set(where.values())):
            save_file({name: tensors[name] for name in tensors if where[name] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps(
            {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": where}))
        return folder

    # ---- GGUF -------------------------------------------------------------------------------------------------------

    def gguf_metadata(self, architecture: str) -> dict[str, Any]:
        f, a = self.family, architecture
        return {"general.architecture": a, "general.name": "synthetic", f"{a}.block_count": f.layers,
                f"{a}.context_length": f.max_positions, f"{a}.embedding_length": f.hidden,
                f"{a}.feed_forward_length": f.ffn, f"{a}.attention.head_count": f.heads,
                f"{a}.attention.head_count_kv": f.kv_heads, f"{a}.attention.key_length": f.head_dim,
                f"{a}.attention.value_length": f.head_dim, f"{a}.rope.dimension_count": f.head_dim,
                f"{a}.rope.freq_base": float(f.theta),
                f"{a}.attention.layer_norm_rms_epsilon": float(f.epsilon), f"{a}.vocab_size": f.vocabulary}

    def gguf_tensors(self, architecture: str, matrices: str, rows: str,
                     scale_tensors: bool = False) -> Iterator[GgufTensor]:
        """``matrices``: TQ1_0, TQ2_0, I2_S-x86, I2_S-arm, F32, F16 or BF16; ``rows`` (embedding and head): F32, F16,
        BF16, Q8_0 or Q6_K. ``scale_tensors``: codes with scale 1 and the scale in a tensor of its own."""
        f = self.family
        yield gguf_rows("token_embd.weight", self.embedding().astype(np.float32), rows)
        if f.llama3:
            yield gguf_rows("rope_freqs.weight", llama3_divisors(f), "F32")
        for layer in range(f.layers):
            for part in (*self.gains, *MATRICES):
                name = f"blk.{layer}.{GGUF[part]}"
                if part not in MATRICES:
                    yield gguf_rows(f"{name}.weight", self.gain(layer, part), "F32")
                    continue
                codes, scale = self.codes(layer, part), self.scale(layer, part)
                if architecture == "llama" and part in ("query", "key"):
                    codes = pairs_side_by_side(codes, f.head_dim)
                if scale_tensors:
                    yield gguf_rows(f"{name}.scale", np.array([scale], np.float32), "F32")
                    scale = 1.0
                yield gguf_matrix(f"{name}.weight", codes, scale, matrices)
        yield gguf_rows("output_norm.weight", self.gain(-1, "input_gain"), "F32")
        if not f.tied:
            yield gguf_rows("output.weight", self.head().astype(np.float32), rows)

    def write_gguf(self, path: Path, architecture: str, matrices: str = "TQ2_0", rows: str = "F16",
                   metadata: dict[str, Any] | None = None, scale_tensors: bool = False) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = list(self.gguf_tensors(architecture, matrices, rows, scale_tensors))
        path.write_bytes(gguf_bytes({**self.gguf_metadata(architecture), **(metadata or {})}, tensors))
        return path


def llama3_divisors(family: Family) -> np.ndarray:
    """What llama.cpp's converter writes to rope_freqs for Llama 3.1's scaling of the fixture's config."""
    divisors = []
    for pair in range(family.head_dim // 2):
        wavelength = 2 * np.pi * family.theta ** (2 * pair / family.head_dim)
        if wavelength < 64 / 4:
            divisors.append(1.0)
        elif wavelength > 64 / 1:
            divisors.append(8.0)
        else:
            smooth = (64 / wavelength - 1) / (4 - 1)
            divisors.append(1 / ((1 - smooth) / 8 + smooth))
    return np.array(divisors, np.float32)


def pack_uint8(codes: np.ndarray) -> np.ndarray:
    """int8 [outputs, inputs] → BitNet's uint8 [⌈outputs/4⌉, inputs]."""
    rows = -(-len(codes) // 4)
    fields = np.ones((4 * rows, codes.shape[1]), np.uint8)
    fields[: len(codes)] = (codes + 1).astype(np.uint8)
    a, b, c, d = fields.reshape(4, rows, -1)
    return a | b << 2 | c << 4 | d << 6


def pairs_side_by_side(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """q or k as llama.cpp's converter stores it for the llama architecture."""
    halves = rows.reshape(-1, 2, head_dim // 2, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


# ---- a GGUF file, byte by byte: the gguf package's writer knows no foreign types, and no damage --------------------

TYPE_IDS = {"F32": 0, "F16": 1, "Q8_0": 8, "Q6_K": 14, "BF16": 30, "TQ1_0": 34, "TQ2_0": 35, "I2_S-x86": 36,
            "I2_S-arm": 36}


@dataclass(frozen=True)
class GgufTensor:
    name: str
    shape: tuple[int, ...]
    """Slowest first."""
    type_id: int
    data: bytes


def gguf_rows(name: str, values: np.ndarray, kind: str) -> GgufTensor:
    """Floats, or rows of blocks."""
    if kind == "Q6_K":
        raw: Any = quantise_q6_k(values)
    elif kind == "F16":
        raw = values.astype("<f2")
    else:
        raw = quantize(values, GGMLQuantizationType[kind]) if kind != "F32" else values.astype("<f4")
    return GgufTensor(name, values.shape, TYPE_IDS[kind], raw.tobytes())


def gguf_matrix(name: str, codes: np.ndarray, scale: float, kind: str) -> GgufTensor:
    if kind.startswith("I2_S"):
        raw = i2_s_bytes(codes, scale, {"I2_S-x86": 32, "I2_S-arm": 16}[kind])
        return GgufTensor(name, codes.shape, TYPE_IDS[kind], raw)
    return gguf_rows(name, codes * np.float32(scale), kind)


def i2_s_bytes(codes: np.ndarray, scale: float, stride: int) -> bytes:
    """I2_S of bitnet.cpp: in a block of 4·stride weights, weight g·stride + p is in byte p, bits 7 − 2g, 6 − 2g."""
    fields = (codes.reshape(-1, 4, stride) + 1).astype(np.uint8)
    packed = fields[:, 0] << 6 | fields[:, 1] << 4 | fields[:, 2] << 2 | fields[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + b"\xa5" * 28


def quantise_q6_k(values: np.ndarray) -> np.ndarray:
    """A plain Q6_K: per 16 weights an int8 scale, per 256 a float16; no search for the best."""
    blocks = values.reshape(-1, 16, 16).astype(np.float32)
    wanted = np.abs(blocks).max(axis=2) / 31
    d = (wanted.max(axis=1) / 127).astype(np.float16)
    steps = np.where(d == 0, 1, d).astype(np.float32)[:, None]
    scales = np.clip(np.rint(wanted / steps), 1, 127)
    q = np.clip(np.rint(blocks / (scales * steps)[:, :, None]), -32, 31).astype(np.int8).reshape(-1, 2, 4, 32)
    q = (q + 32).astype(np.uint8)
    low = np.concatenate([q[:, :, 0] & 15 | (q[:, :, 2] & 15) << 4, q[:, :, 1] & 15 | (q[:, :, 3] & 15) << 4], axis=2)
    high = q[:, :, 0] >> 4 | q[:, :, 1] >> 4 << 2 | q[:, :, 2] >> 4 << 4 | q[:, :, 3] >> 4 << 6
    count = len(blocks)
    raw = np.concatenate([low.reshape(count, -1), high.reshape(count, -1), scales.astype(np.int8).view(np.uint8),
                          d[:, None].view(np.uint8)], axis=1)
    return raw.reshape(values.shape[0], -1)


def dequantised(values: np.ndarray, kind: str) -> np.ndarray:
    """What is left of ``values`` after storing them as ``kind``, by the gguf package."""
    if kind in ("F32", "F16"):
        return values.astype("<f2" if kind == "F16" else "<f4").astype(np.float32)
    tensor = gguf_rows("", values, kind)
    raw = np.frombuffer(tensor.data, np.uint8).reshape(len(values), -1)
    return np.asarray(dequantize(raw, GGMLQuantizationType[kind]), np.float32)


def gguf_bytes(metadata: dict[str, Any], tensors: list[GgufTensor], alignment: int = 32) -> bytes:
    """A whole file. Integers are uint32, in lists int32, floats float32; lists take their first element's type."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _text(key) + _value(value)
    body, where = bytearray(), []
    for tensor in tensors:
        where.append(len(body))
        body += tensor.data + b"\0" * (-len(tensor.data) % alignment)
    for tensor, offset in zip(tensors, where):
        head += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape))
        head += struct.pack("<IQ", tensor.type_id, offset)
    return head + b"\0" * (-len(head) % alignment) + bytes(body)


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _scalar(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<B", value)
    if isinstance(value, int):
        return (4, struct.pack("<I", value)) if value >= 0 else (5, struct.pack("<i", value))
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    return 8, _text(value)


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        parts = [(5, struct.pack("<i", v)) if type(v) is int else _scalar(v) for v in value]
        return struct.pack("<IIQ", 9, parts[0][0] if parts else 4, len(parts)) + b"".join(raw for _, raw in parts)
    kind, raw = _scalar(value)
    return struct.pack("<I", kind) + raw
