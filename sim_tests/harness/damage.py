"""Damages checkpoints in the ways that downloads, converters and people damage them; from a seed: a case recurs.

A checkpoint is a mapping of file names to bytes. Places whose change makes another valid model (a digit of rope_theta,
a weight that stays ternary) are left alone: nobody could tell.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Files = dict[str, bytes]
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
         "intermediate_size", "vocab_size")
ABSURD = (0, -1, 1, 3, 7, 1 << 16, 1 << 24, 1 << 31, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1)
NOT_NUMBERS: tuple[float, ...] = (float("nan"), float("inf"), float("-inf"))


@dataclass(frozen=True)
class Case:
    name: str
    files: Files


def damaged(files: Mapping[str, bytes], seed: int) -> Case:
    """One damaged copy of a checkpoint."""
    rng = random.Random(seed)
    kinds = GGUF_KINDS if any(name.endswith(".gguf") for name in files) else FOLDER_KINDS
    kind = rng.choice([k for k in kinds if k is not index_entry or _index(files)])
    return Case(f"{kind.__name__}, seed {seed}", kind(dict(files), rng))


def _weights(files: Mapping[str, bytes], rng: random.Random) -> str:
    return rng.choice(sorted(name for name in files if name.endswith((".safetensors", ".gguf"))))


def truncate(files: Files, rng: random.Random) -> Files:
    name = _weights(files, rng)
    raw = files[name]
    keep = rng.choice([rng.randrange(len(raw)), rng.randrange(min(len(raw), 400)),
                       max(0, len(raw) - rng.randrange(1, 70))])
    return {**files, name: raw[:keep]}


def _flip(raw: bytes, first: int, last: int, rng: random.Random, count: int = 1) -> bytes:
    out = bytearray(raw)
    for _ in range(count):
        out[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
    return bytes(out)


# ---- safetensors and config.json -----------------------------------------------------------------------------------


def _header(raw: bytes) -> tuple[int, dict[str, Any]]:
    size = struct.unpack("<Q", raw[:8])[0]
    return 8 + size, json.loads(raw[8:8 + size])


def _with_header(raw: bytes, header: Any) -> bytes:
    end, _ = _header(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + raw[end:]


def header_bits(files: Files, rng: random.Random) -> Files:
    name = _weights(files, rng)
    end, _ = _header(files[name])
    first, last = rng.choice([(0, 8), (0, end), (8, end), (8, end)])
    return {**files, name: _flip(files[name], first, last, rng, rng.choice([1, 1, 2, 8]))}


def _entry(header: dict[str, Any], rng: random.Random) -> str:
    return rng.choice(sorted(key for key in header if key != "__metadata__"))


def offsets(files: Files, rng: random.Random) -> Files:
    name = _weights(files, rng)
    _, header = _header(files[name])
    entry = header[_entry(header, rng)]
    first, last = entry["data_offsets"]
    entry["data_offsets"] = rng.choice([[0, last - first], [first - 1, last - 1], [last, first], [first, last + 2],
                                        [first, rng.choice(ABSURD)], [rng.choice(ABSURD), last], [first], "x", None])
    if entry["data_offsets"] == [first, last]:
        entry["data_offsets"] = [first, last + 1]
    return {**files, name: _with_header(files[name], header)}


def shapes(files: Files, rng: random.Random) -> Files:
    name = _weights(files, rng)
    _, header = _header(files[name])
    entry = header[_entry(header, rng)]
    shape = list(entry["shape"])
    shape[rng.randrange(len(shape))] = rng.choice(ABSURD[:2] + ABSURD[3:])
    entry["shape"] = rng.choice([shape, [*entry["shape"], 1 << 40], [1 << 62, 1 << 62], [-1, *entry["shape"]], "x"])
    return {**files, name: _with_header(files[name], header)}


def types(files: Files, rng: random.Random) -> Files:
    name = _weights(files, rng)
    _, header = _header(files[name])
    entry = header[_entry(header, rng)]
    entry["dtype"] = rng.choice(["F64", "I64", "BOOL", "F8_E4M3", "C64", "U4", "", None, 5])
    return {**files, name: _with_header(files[name], header)}


def names(files: Files, rng: random.Random) -> Files:
    """A tensor under another name: one is missing, one is unknown."""
    name = _weights(files, rng)
    _, header = _header(files[name])
    old = _entry(header, rng)
    new = rng.choice([old + "x", old[:-1], old.replace("model", "medal"), "", "\u0000",
                      old.replace(".weight", ".bias")])
    if new == old:
        new = old + "2"
    return {**files, name: _with_header(files[name], {new if key == old else key: v for key, v in header.items()})}


def values(files: Files, rng: random.Random) -> Files:
    """NaN and infinity in a gain, a scale, the embedding or a master; zero and negative scales."""
    name = _weights(files, rng)
    end, header = _header(files[name])
    floats = sorted(key for key, entry in header.items() if key != "__metadata__" and entry["dtype"] in ("BF16", "F16"))
    if not floats:
        return truncate(files, rng)
    key = rng.choice(floats)
    first, last = header[key]["data_offsets"]
    number = {"BF16": {"nan": 0x7FC0, "inf": 0x7F80, "-inf": 0xFF80, "zero": 0, "negative": 0xBF80, "tiny": 1},
              "F16": {"nan": 0x7E00, "inf": 0x7C00, "-inf": 0xFC00, "zero": 0, "negative": 0xBC00, "tiny": 0x8001}
              }[header[key]["dtype"]]
    which = rng.choice(sorted(number) if key.endswith("_scale") else ["nan", "inf", "-inf"])
    at = end + first + 2 * rng.randrange((last - first) // 2)
    raw = files[name]
    return {**files, name: raw[:at] + struct.pack("<H", number[which]) + raw[at + 2:]}


def code_three(files: Files, rng: random.Random) -> Files:
    name = _weights(files, rng)
    end, header = _header(files[name])
    packed = sorted(key for key, entry in header.items() if key != "__metadata__" and entry["dtype"] == "U8")
    if not packed:
        return values(files, rng)
    first, last = header[rng.choice(packed)]["data_offsets"]
    out = bytearray(files[name])
    out[end + rng.randrange(first, last)] |= 3 << 2 * rng.randrange(4)
    return {**files, name: bytes(out)}


def config_sizes(files: Files, rng: random.Random) -> Files:
    config = json.loads(files["config.json"])
    key = rng.choice(SIZES)
    choices = [*ABSURD, config[key] + 1, config[key] * 2, config[key] - 1, "64", None, 2.5, [], {}, True]
    has_default = key.endswith(("_dim", "_heads"))
    config[key] = rng.choice([v for v in choices if v != config[key] and not (v is None and has_default)])
    return {**files, "config.json": json.dumps(config).encode()}


def config_values(files: Files, rng: random.Random) -> Files:
    config = json.loads(files["config.json"])
    choices: list[tuple[str, list[Any]]] = [
        ("rms_norm_eps", [*NOT_NUMBERS, 0, -1e-5, 7.0, "x", [], {}]), ("rope_theta", [*NOT_NUMBERS, 0, -1, "x", []]),
        ("hidden_act", ["gelu", 5, [], {"a": 1}]), ("model_type", ["mamba", 5, None, [], {}]),
        ("quantization_config", ["x", 5, {"quant_method": "gptq"}, {"quant_method": "bitnet", "linear_class": "x"},
                                 {"quant_method": "bitnet", "group_size": 64}, [1]]),
        ("rope_scaling", [{"type": "yarn"}, {"type": []}, {"rope_type": "llama3"},
                          {"rope_type": "llama3", "factor": "x"}, 5, "linear",
                          {"rope_type": "linear", "factor": float("nan")}]),
        ("architectures", [5, "x", {"a": 1}]), ("max_position_embeddings", [0, -1, 1 << 23, 1 << 40, "x", []]),
        ("attention_bias", [True, "x"]), ("sliding_window", [128]), ("num_experts", [8]), ("use_qk_norm", [True])]
    key, wrong = rng.choice(choices)
    config[key] = rng.choice(wrong)
    return {**files, "config.json": json.dumps(config).encode()}


def config_text(files: Files, rng: random.Random) -> Files:
    raw = files["config.json"]
    return {**files, "config.json": rng.choice([
        raw[:rng.randrange(len(raw) - 1)], b"", b"[]", b"null", b"\xff\xfe" + raw, b"[" * 100_000, raw + b"}",
        raw.replace(b"{", b"", 1), b'{"hidden_size": ' + b"9" * 5000 + b"}"])}


def missing_file(files: Files, rng: random.Random) -> Files:
    name = rng.choice(sorted(files))
    return {other: raw for other, raw in files.items() if other != name}


def other_bytes(files: Files, rng: random.Random) -> Files:
    """Something else under the name of the weights."""
    name = _weights(files, rng)
    return {**files, name: rng.choice([b"", b"\0" * 4096, rng.randbytes(rng.randrange(1, 5000)), b"PK\x03\x04" * 99,
                                       b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1178628724\n",
                                       b"<!DOCTYPE html>" + b" " * 500, b"\xff" * 64, b"GGUF", b"GGUF" + b"\xff" * 64])}


def _index(files: Mapping[str, bytes]) -> str | None:
    return next((name for name in files if name.endswith(".index.json")), None)


def index_entry(files: Files, rng: random.Random) -> Files:
    name = _index(files)
    assert name
    index = json.loads(files[name])
    where = index["weight_map"]
    key = rng.choice(sorted(where))
    other = rng.choice(sorted(set(where.values()) - {where[key]}))
    index["weight_map"] = rng.choice([
        {**where, key: other}, {**where, key: "../" + where[key]}, {**where, key: 5}, {**where, "x": where[key]},
        {**where, key: "nothing.safetensors"}, [], None, {k: other for k in where}])
    return {**files, name: json.dumps(index).encode()}


FOLDER_KINDS: list[Callable[[Files, random.Random], Files]] = [
    truncate, header_bits, header_bits, offsets, shapes, types, names, values, values, code_three, config_sizes,
    config_values, config_text, missing_file, other_bytes, index_entry, index_entry]


# ---- GGUF ------------------------------------------------------------------------------------------------------------

STRUCTURE = ("block_count", "embedding_length", "feed_forward_length", "head_count", "head_count_kv", "key_length",
             "value_length", "dimension_count", "vocab_size", "architecture")
"""Ends of the keys whose values tensors contradict when they change."""


@dataclass(frozen=True)
class _Tensor:
    name: tuple[int, int]
    dims: tuple[int, int]
    kind: int
    """Place of the type id."""
    offset: int


def _walk(raw: bytes) -> tuple[list[tuple[int, int]], list[_Tensor], int]:
    """Spans of the header where any change must show; the tensor table; where the data begin."""
    spans, at = [(0, 24)], 24
    count, keys = struct.unpack_from("<QQ", raw, 8)
    for _ in range(keys):
        size = struct.unpack_from("<Q", raw, at)[0]
        key = raw[at + 8:at + 8 + size].decode()
        end = at + 8 + size + 4
        kind = struct.unpack_from("<I", raw, end - 4)[0]
        value_end = end + (8 + struct.unpack_from("<Q", raw, end)[0] if kind == 8 else 1 if kind == 7 else 4)
        if key.endswith(STRUCTURE):
            spans.append((at, value_end))
        at = value_end
    tensors = []
    for _ in range(count):
        size = struct.unpack_from("<Q", raw, at)[0]
        name = (at + 8, at + 8 + size)
        dims = struct.unpack_from("<I", raw, name[1])[0]
        kind = name[1] + 4 + 8 * dims
        tensors.append(_Tensor(name, (name[1] + 4, kind), kind, kind + 4))
        spans.append((at, kind + 12))
        at = kind + 12
    return spans, tensors, -(-at // 32) * 32


def gguf_header_bits(files: Files, rng: random.Random) -> Files:
    name = _weights(files, rng)
    spans, _, _ = _walk(files[name])
    first, last = rng.choice([spans[0], rng.choice(spans), rng.choice(spans), rng.choice(spans)])
    return {**files, name: _flip(files[name], first, last, rng, rng.choice([1, 1, 1, 3]))}


def _patched(files: Files, rng: random.Random, place: Callable[[_Tensor], tuple[int, int]], form: str,
             numbers: list[int]) -> Files:
    name = _weights(files, rng)
    _, tensors, _ = _walk(files[name])
    raw = bytearray(files[name])
    first, last = place(rng.choice(tensors))
    size = struct.calcsize(form)
    at = rng.randrange(first, last, size)
    old = struct.unpack_from(form, raw, at)[0]
    struct.pack_into(form, raw, at, rng.choice([n for n in numbers if n != old]))
    return {**files, name: bytes(raw)}


def gguf_offsets(files: Files, rng: random.Random) -> Files:
    name = _weights(files, rng)
    numbers = [*(n for n in ABSURD if n >= 0), 32, 64, len(files[name]), 32 * rng.randrange(len(files[name]) // 32)]
    return _patched(files, rng, lambda t: (t.offset, t.offset + 8), "<Q", numbers)


def gguf_shapes(files: Files, rng: random.Random) -> Files:
    return _patched(files, rng, lambda t: t.dims, "<Q", [n for n in ABSURD if n >= 0] + [256, 512, 300])


def gguf_types(files: Files, rng: random.Random) -> Files:
    return _patched(files, rng, lambda t: (t.kind, t.kind + 4), "<I",
                    [2, 8, 12, 14, 24, 28, 31, 37, 38, 39, 40, 41, 42, 99, 142, 143, (1 << 32) - 1])


def gguf_numbers(files: Files, rng: random.Random) -> Files:
    """Counts of tensors and keys, lengths of names: what a reader may trust too much."""
    name = _weights(files, rng)
    _, tensors, _ = _walk(files[name])
    raw = bytearray(files[name])
    at = rng.choice([8, 16, 24, rng.choice(tensors).name[0] - 8])
    old = struct.unpack_from("<Q", raw, at)[0]
    struct.pack_into("<Q", raw, at, rng.choice([n for n in ABSURD if n >= 0 and n != old]))
    return {**files, name: bytes(raw)}


def gguf_values(files: Files, rng: random.Random) -> Files:
    """NaN or infinity in a float tensor or a scale of ternary blocks; code 3 in those that have one."""
    name = _weights(files, rng)
    _, tensors, start = _walk(files[name])
    raw = bytearray(files[name])
    tensor = rng.choice(tensors)
    kind = struct.unpack_from("<I", raw, tensor.kind)[0]
    at = start + struct.unpack_from("<Q", raw, tensor.offset)[0]
    dims = struct.unpack_from(f"<{(tensor.dims[1] - tensor.dims[0]) // 8}Q", raw, tensor.dims[0])
    elements = 1
    for n in dims:
        elements *= n
    float16 = struct.pack("<H", rng.choice([0x7E00, 0x7C00, 0xFC00]))
    float32 = struct.pack("<f", rng.choice(NOT_NUMBERS))
    if kind == 36:
        if rng.random() < 0.5:
            raw[at + rng.randrange(elements // 4)] |= 3 << 2 * rng.randrange(4)
        else:
            raw[at + elements // 4:at + elements // 4 + 4] = rng.choice([float32, struct.pack("<f", 0.0),
                                                                         struct.pack("<f", -1.0)])
        return {**files, name: bytes(raw)}
    block, size, scale, number = {0: (1, 4, 0, float32), 1: (1, 2, 0, float16), 8: (32, 34, 0, float16),
                                  14: (256, 210, 208, float16), 34: (256, 54, 52, float16),
                                  35: (256, 66, 64, float16)}[kind]
    at += size * rng.randrange(elements // block)
    if kind == 35 and rng.random() < 0.5:
        raw[at + rng.randrange(64)] |= 3 << 2 * rng.randrange(4)
    else:
        raw[at + scale:at + scale + len(number)] = number
    return {**files, name: bytes(raw)}


def gguf_more(files: Files, rng: random.Random) -> Files:
    """Bytes too many."""
    name = _weights(files, rng)
    return {**files, name: files[name] + rng.randbytes(rng.choice([32, 100, 5000]))}


GGUF_KINDS: list[Callable[[Files, random.Random], Files]] = [
    truncate, truncate, gguf_header_bits, gguf_header_bits, gguf_header_bits, gguf_offsets, gguf_shapes, gguf_types,
    gguf_numbers, gguf_values, gguf_values, gguf_more, other_bytes]
