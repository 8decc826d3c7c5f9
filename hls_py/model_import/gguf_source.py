"""A GGUF file as a Source: its metadata decides the architecture, its tensors what the model has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from hls_py.errors import TellmeError
from hls_py.model_import import gguf_codes as codes
from hls_py.model_import.config import ModelConfig, positive_number, positive_size
from hls_py.model_import.gguf_file import I2_S, GgufFile, GgufTensor, is_readable
from hls_py.model_import.i2s_layout import decide, evidence
from hls_py.model_import.parts import GAINS, MATRICES, Rows, TernaryMatrix, gain_width, matrix_shape
from hls_py.model_import.refusals import MODEL_TYPES, Unsupported, tensor_items
from hls_py.model_import.rope import Rope
from hls_py.model_import.ternary import checked_scale, exactly_ternary

ARCHITECTURES = {"llama": ("silu", True), "bitnet": ("silu", False), "bitnet-25": ("relu_squared", False),
                 "bitnet-b1.58": ("relu_squared", False)}
"""general.architecture → activation, and whether llama.cpp stores q and k with rotary pairs side by side."""
NAMES = {
    "input_gain": "attn_norm", "attention_gain": "attn_sub_norm", "post_attention_gain": "ffn_norm",
    "ffn_gain": "ffn_sub_norm", "query": "attn_q", "key": "attn_k", "value": "attn_v", "output": "attn_output",
    "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}
EMBEDDING, HEAD, FINAL, ROPE = "token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight"
SUB_NORMS = ("attention_gain", "ffn_gain")
FLOATS = (0, 1, 30)
"""F32, F16, BF16."""
TQ1_0, TQ2_0 = 34, 35
TERNARY = {TQ1_0: "TQ1_0", TQ2_0: "TQ2_0", I2_S: "I2_S"}


class GgufSource:
    """Raises :class:`TellmeError` on construction when metadata or tensors can't be used, naming everything that isn't
    supported. ``i2s_layout``: 'x86', 'arm', or None to find out from the data."""

    def __init__(self, path: Path, i2s_layout: str | None = None):
        self.path = path
        self.file = GgufFile(path)
        self.config = self._config()
        tensors = self.file.tensors
        self.has_attention_sub_norm = "blk.0.attn_sub_norm.weight" in tensors
        self.has_ffn_sub_norm = "blk.0.ffn_sub_norm.weight" in tensors
        self._check_tensors()
        self._permuted = ARCHITECTURES[self.config.model_type][1]
        self.i2s_layout = self._layout(i2s_layout)
        self.formats = self._formats()

    # ---- metadata ---------------------------------------------------------------------------------------------------

    def _config(self) -> ModelConfig:
        data, where = self.file.metadata, str(self.path)
        arch = data.get("general.architecture")
        items = []
        if not isinstance(arch, str) or arch not in ARCHITECTURES:
            known = MODEL_TYPES.get(arch) if isinstance(arch, str) else None
            items.append(f"general.architecture {arch!r} is not supported" + (
                f": {known}" if known else f"; supported are {', '.join(ARCHITECTURES)}"))

        def value(key: str, default: Any = None) -> Any:
            return data.get(f"{arch}.{key}", default)

        if (data.get("split.count") or 0) not in (0, 1):
            items.append(f"a model in {data['split.count']} files is not supported; join them with llama-gguf-split")
        for key, allowed, text in (
                ("expert_count", (None, 0), "mixture of experts"), ("attention.sliding_window", (None, 0),
                                                                     "a sliding window"),
                ("rope.scaling.type", (None, "none", "linear"), "rotary embedding"),
                ("rope.scaling.attn_factor", (None, 1.0), "scaled rotary embeddings"),
                ("attention.causal", (None, True), "attention to later positions"),
                ("logit_scale", (None, 0.0, 1.0), "logit_scale"), ("embedding_scale", (None, 0.0, 1.0),
                                                                   "embedding_scale"),
                ("residual_scale", (None, 0.0, 1.0), "residual_scale"),
                ("use_parallel_residual", (None, False), "parallel residuals")):
            if value(key) not in allowed:
                items.append(f"{text} ({arch}.{key} {value(key)!r}) is not supported")
        foreign = {t.type_id: t for t in self.file.tensors.values() if not is_readable(t.type_id) and t.type_id != I2_S}
        items += [f"tensor {t.name} is of type {t.type_id}: {t.type_name}; it is not supported"
                  for t in foreign.values()]
        if items:
            raise Unsupported(where, items)
        embedding = self.file.tensors.get(EMBEDDING)
        if embedding is None or len(embedding.shape) != 2:
            raise TellmeError(f"{where}: tensor {EMBEDDING} is missing or no matrix")

        def size(key: str, default: int | None = None) -> int:
            return positive_size({key: value(key)}, key, f"{where}: {arch}", default)

        hidden, heads = size("embedding_length"), size("attention.head_count")
        head_dim = size("attention.key_length", hidden // heads if hidden % heads == 0 else None)
        for key in ("attention.value_length", "rope.dimension_count"):
            if size(key, head_dim) != head_dim:
                raise TellmeError(f"{where}: {arch}.{key} is {value(key)}, heads have {head_dim} elements; that is not "
                                  "supported")
        if size("vocab_size", embedding.shape[0]) != embedding.shape[0]:
            raise TellmeError(f"{where}: {arch}.vocab_size is {value('vocab_size')}, {EMBEDDING} has "
                              f"{embedding.shape[0]} rows")
        config = ModelConfig(
            model_type=str(arch), hidden_size=hidden, layers=size("block_count"), heads=heads,
            kv_heads=size("attention.head_count_kv", heads), head_dim=head_dim,
            intermediate_size=size("feed_forward_length"), vocabulary=embedding.shape[0],
            max_positions=size("context_length"), activation=ARCHITECTURES[str(arch)][0],
            norm_epsilon=positive_number(data, f"{arch}.attention.layer_norm_rms_epsilon", where, None),
            rope=self._rope(str(arch), head_dim), tied_head=HEAD not in self.file.tensors, linear_class=None,
            masters=False)
        config.check(where)
        return config

    def _rope(self, arch: str, head_dim: int) -> Rope:
        data, where = self.file.metadata, str(self.path)
        theta = positive_number(data, f"{arch}.rope.freq_base", where, 1e4)
        factor = 1.0
        # llama.cpp takes a factor without a type as linear; older files call it scale_linear.
        if data.get(f"{arch}.rope.scaling.type", "linear") == "linear":
            key = "rope.scaling.factor" if f"{arch}.rope.scaling.factor" in data else "rope.scale_linear"
            factor = positive_number(data, f"{arch}.{key}", where, 1.0)
        tensor = self.file.tensors.get(ROPE)
        if tensor is None:
            return Rope(theta, linear_factor=factor)
        divisors = self._floats(ROPE, (head_dim // 2,))
        if factor != 1 or (divisors <= 0).any():
            raise TellmeError(f"{where}: {ROPE} with a linear factor, or with divisors that aren't positive")
        return Rope(theta, divisors=tuple(divisors.tolist()))

    # ---- tensors ----------------------------------------------------------------------------------------------------

    def _check_tensors(self) -> None:
        c, tensors = self.config, self.file.tensors
        parts = [p for p in NAMES
                 if p not in SUB_NORMS or f"blk.0.{NAMES[p]}.weight" in tensors or c.needs_sub_norms]
        layers = min(c.layers, len(tensors) + 1)
        needed = [EMBEDDING, FINAL, *(_name(i, part) for i in range(layers) for part in parts)]
        known = {*needed, HEAD, ROPE, *(_scale_name(i, part) for i in range(layers) for part in MATRICES)}
        missing = [name for name in needed if name not in tensors]
        extra = set(tensors) - known
        beyond = {name for name in extra if (m := re.match(r"blk\.(\d+)\.", name)) and int(m[1]) >= c.layers}
        items = tensor_items(sorted(extra - beyond))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            items.insert(0, f"tensor {missing[0]}{more} missing from the file")
        if beyond:
            items.append(f"the file has more layers than {c.model_type}.block_count {c.layers} (tensor {min(beyond)})")
        if HEAD in tensors and c.model_type != "llama":
            items.append(f"tensor {HEAD}: llama.cpp's {c.model_type} takes the head from {EMBEDDING}, so a head of its "
                         "own is not supported")
        if items:
            raise Unsupported(str(self.path), items)
        for layer in range(c.layers):
            for part in MATRICES:
                tensor = self._expect(_name(layer, part), matrix_shape(c, part))
                if tensor.type_id not in (*TERNARY, *FLOATS):
                    items.append(f"tensor {tensor.name} is {tensor.type_name}; a ternary matrix comes as "
                                 f"{', '.join(TERNARY.values())}, F32, F16 or BF16")
        if items:
            raise Unsupported(str(self.path), [items[0] + (f" ({len(items) - 1} more alike)" if items[1:] else "")])

    def _expect(self, name: str, shape: tuple[int, ...]) -> GgufTensor:
        tensor = self.file.tensors.get(name)
        if tensor is None:
            raise TellmeError(f"{self.path}: tensor {name} is missing")
        if tensor.shape != shape:
            raise TellmeError(f"tensor {name} has shape {list(tensor.shape)}; the metadata asks for {list(shape)}")
        return tensor

    def _floats(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = self._expect(name, shape)
        if tensor.type_id not in FLOATS:
            raise TellmeError(f"tensor {name} is {tensor.type_name}; a float tensor is needed")
        return self.file.whole(tensor)

    def _layout(self, asked: str | None) -> str | None:
        """The layout of I2_S tensors; None where there are none."""
        if all(t.type_id != I2_S for t in self.file.tensors.values()):
            return None
        if asked is not None:
            return asked
        types = {self.file.tensors[_name(i, part)].type_id for i in range(self.config.layers) for part in MATRICES}
        if types == {I2_S}:
            scores = {layout: self._evidence(layout) for layout in codes.I2_S_LAYOUTS}
            found = decide(scores)
            if found:
                return found
            told = ", ".join(f"{name} {score:+.1f} σ" for name, score in scores.items())
        else:
            told = "not all matrices are I2_S"
        raise TellmeError(f"{self.path}: I2_S is stored in two ways, by whether the file was made on x86 or on ARM, "
                          f"and its weights don't tell which ({told}); say --i2s-layout x86 or --i2s-layout arm")

    def _evidence(self, layout: str) -> float:
        return evidence(lambda layer, part: self._i2_s(_name(layer, part), layout), self.config)

    def _i2_s(self, name: str, layout: str) -> np.ndarray:
        tensor = self.file.tensors[name]
        if tensor.elements % codes.I2_S_LAYOUTS["x86"]:
            raise TellmeError(f"tensor {name} of {tensor.elements} weights is not whole blocks of I2_S")
        raw = self.file.raw(tensor, 0, tensor.elements // 4)
        return _ternary(codes.decode_i2_s(raw, layout), name).reshape(tensor.shape)

    def _formats(self) -> dict[str, str]:
        tensors = self.file.tensors
        stored = {tensors[_name(i, part)].type_id for i in range(self.config.layers) for part in MATRICES}
        names = [TERNARY.get(t, GgufTensor("", (), t, 0, 0).type_name + ", ternary") for t in sorted(stored)]
        layout = f" ({self.i2s_layout} layout)" if self.i2s_layout else ""
        return {"matrices": ", ".join(names) + layout, "embedding": tensors[EMBEDDING].type_name,
                "head": "tied" if self.config.tied_head else tensors[HEAD].type_name}

    def matrix(self, layer: int, part: str) -> TernaryMatrix:
        name = _name(layer, part)
        tensor = self._expect(name, matrix_shape(self.config, part))
        if tensor.type_id == I2_S:
            assert self.i2s_layout
            trailer = self.file.raw(tensor, tensor.elements // 4, 4).view("<f4")
            found = TernaryMatrix(self._i2_s(name, self.i2s_layout), checked_scale(trailer, f"{name} (its scale)"))
        elif tensor.type_id in (TQ1_0, TQ2_0):
            found = self._blocks(tensor)
        else:
            found = exactly_ternary(self.file.whole(tensor), name)
        scale_name = _scale_name(layer, part)
        if scale_name in self.file.tensors:
            own = checked_scale(self.file.whole(self.file.tensors[scale_name]), scale_name)
            found = TernaryMatrix(found.codes, checked_scale(np.asarray(found.scale * own), scale_name))
        if self._permuted and part in ("query", "key"):
            found = TernaryMatrix(_halves_apart(found.codes, self.config.head_dim), found.scale)
        return found

    def _blocks(self, tensor: GgufTensor) -> TernaryMatrix:
        """TQ1_0 and TQ2_0 have a scale a block; a matrix here has one, but blocks of zeros may say what they like."""
        decode, size = ((codes.decode_tq1_0, codes.TQ1_0_BYTES) if tensor.type_id == TQ1_0
                        else (codes.decode_tq2_0, codes.TQ2_0_BYTES))
        found, scales = decode(self.file.raw(tensor).reshape(-1, size))
        _ternary(found, tensor.name)
        if not np.isfinite(scales).all() or (scales < 0).any():
            raise TellmeError(f"tensor {tensor.name} has a scale that is negative, NaN or infinity")
        found[scales == 0] = 0
        used = np.unique(scales[(scales != 0) & found.any(axis=1)])
        if len(used) > 1:
            raise TellmeError(f"tensor {tensor.name} has {len(used)} different scales (from {used[0]} to {used[-1]}); "
                              "group-wise scales are not supported yet")
        return TernaryMatrix(found.reshape(tensor.shape), np.float32(used[0]) if len(used) else np.float32(1))

    def gain(self, layer: int, part: str) -> np.ndarray:
        assert part in GAINS
        return self._floats(_name(layer, part), (gain_width(self.config, part),))

    def final_gain(self) -> np.ndarray:
        return self._floats(FINAL, (self.config.hidden_size,))

    def embedding(self) -> Rows:
        return _TensorRows(self.file, self._expect(EMBEDDING, (self.config.vocabulary, self.config.hidden_size)))

    def head(self) -> Rows:
        if self.config.tied_head:
            return self.embedding()
        return _TensorRows(self.file, self._expect(HEAD, (self.config.vocabulary, self.config.hidden_size)))


class _TensorRows:
    def __init__(self, file: GgufFile, tensor: GgufTensor):
        self._file, self._tensor = file, tensor
        self.shape = (tensor.shape[0], tensor.shape[1])
        if not is_readable(tensor.type_id):
            raise TellmeError(f"tensor {tensor.name} is {tensor.type_name}; an embedding or head can't be")

    def read(self, first: int, last: int) -> np.ndarray:
        return self._file.rows(self._tensor, first, last)


def _name(layer: int, part: str) -> str:
    return f"blk.{layer}.{NAMES[part]}.weight"


def _scale_name(layer: int, part: str) -> str:
    return f"blk.{layer}.{NAMES[part]}.scale"


def _ternary(found: np.ndarray, name: str) -> np.ndarray:
    if found.max(initial=0) > 1:
        raise TellmeError(f"tensor {name} holds the code +2, which is not ternary")
    return found


def _halves_apart(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """llama.cpp's row order of q and k (0, d/2, 1, d/2 + 1, …) back to the checkpoint's."""
    by_pair = rows.reshape(-1, head_dim // 2, 2, rows.shape[1])
    return by_pair.swapaxes(1, 2).reshape(rows.shape)
