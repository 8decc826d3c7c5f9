"""A model folder in Hugging Face form as a Source: config.json and safetensors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hls_py.errors import TellmeError
from hls_py.model_import.checkpoint import Checkpoint
from hls_py.model_import.config import read_config
from hls_py.model_import.parts import MATRICES, Rows, TernaryMatrix, gain_width, matrix_shape
from hls_py.model_import.refusals import Unsupported, tensor_items
from hls_py.model_import.ternary import checked_scale, exactly_ternary, quantise_absmean, unpack_bitnet

EMBEDDING, HEAD, FINAL = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
NAMES = {
    "input_gain": ("input_layernorm",), "post_attention_gain": ("post_attention_layernorm",),
    "attention_gain": ("self_attn.attn_sub_norm", "self_attn.inner_attn_ln"),
    "ffn_gain": ("mlp.ffn_sub_norm", "mlp.ffn_layernorm"),
    "query": ("self_attn.q_proj",), "key": ("self_attn.k_proj",), "value": ("self_attn.v_proj",),
    "output": ("self_attn.o_proj",), "gate": ("mlp.gate_proj",), "up": ("mlp.up_proj",), "down": ("mlp.down_proj",),
}
"""Part → its names, today's first and those of older checkpoints after it."""
SUB_NORMS = ("attention_gain", "ffn_gain")
_WITHOUT_VALUE = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$")
"""Tables that some checkpoints carry and that follow from the config."""


class HuggingFaceSource:
    """Raises :class:`TellmeError` on construction when config or files can't be used, or a tensor is missing or
    unknown, so that a long packing run doesn't fail half way for a reason that was there from the start."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = read_config(folder)
        self.checkpoint = Checkpoint(folder)
        self._names = {part: next((n for n in names if f"model.layers.0.{n}.weight" in self.checkpoint), None)
                       for part, names in NAMES.items()}
        self.has_attention_sub_norm = self._names["attention_gain"] is not None
        self.has_ffn_sub_norm = self._names["ffn_gain"] is not None
        self._check_names()
        self.formats = self._formats()

    def _name(self, layer: int, part: str) -> str:
        return f"model.layers.{layer}.{self._names[part] or NAMES[part][0]}.weight"

    def _check_names(self) -> None:
        c = self.config
        needed = [EMBEDDING, FINAL, *([] if c.tied_head else [HEAD])]
        parts = [p for p in NAMES if p not in SUB_NORMS or self._names[p] or c.needs_sub_norms]
        # Names of the layers that a config promises, but no more than there are tensors: it may promise millions.
        layers = min(c.layers, len(self.checkpoint.names()) + 1)
        needed += [self._name(i, part) for i in range(layers) for part in parts]
        missing = [name for name in needed if name not in self.checkpoint]
        extra = (set(self.checkpoint.names()) - set(needed) - {HEAD}
                 - {f"{self._name(i, part)}_scale" for i in range(layers) for part in MATRICES})
        extra = {name for name in extra if not _WITHOUT_VALUE.search(name)}
        beyond = {name for name in extra if (m := re.match(r"model\.layers\.(\d+)\.", name)) and int(m[1]) >= c.layers}
        items = tensor_items(sorted(extra - beyond))
        if beyond:
            items.append(f"the checkpoint has more layers than the {c.layers} of config.json (tensor {min(beyond)})")
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            items.insert(0, f"tensor {missing[0]}{more} missing from the checkpoint")
        if items:
            raise Unsupported(str(self.folder), items)

    def _formats(self) -> dict[str, str]:
        stored = sorted({self.checkpoint.type_name(self._name(i, part))
                         for i in range(self.config.layers) for part in MATRICES})
        packed = {"U8": "packed 2-bit" if self.config.linear_class else "packed"}
        masters = " masters" if self.config.masters else ", ternary"
        return {"matrices": ", ".join(packed.get(t, t + masters) for t in stored),
                "embedding": self.checkpoint.type_name(EMBEDDING),
                "head": "tied" if self.config.tied_head else self.checkpoint.type_name(HEAD)}

    def matrix(self, layer: int, part: str) -> TernaryMatrix:
        name, shape = self._name(layer, part), matrix_shape(self.config, part)
        if self.checkpoint.type_name(name) == "U8":
            if self.config.linear_class is None:
                raise TellmeError(f"tensor {name} is packed, but config.json has no quantization_config that says "
                                  "whether weight_scale multiplies or divides")
            codes = unpack_bitnet(self.checkpoint.tensor(name), shape, name)
            return TernaryMatrix(codes, self._scale(name))
        weight = self.checkpoint.float_tensor(name, shape)
        if self.config.masters:
            return quantise_absmean(weight)
        try:
            found = exactly_ternary(weight, name)
        except TellmeError as error:
            if self.config.linear_class is None:
                raise TellmeError(f"{error}, and nothing in config.json says that this model is ternary") from None
            raise
        if f"{name}_scale" in self.checkpoint:
            found = TernaryMatrix(found.codes, found.scale * self._scale(name))
        return found

    def _scale(self, name: str) -> np.float32:
        """What a stored weight_scale means is the linear class's: the wrong choice would fail silently."""
        scale = checked_scale(self.checkpoint.tensor(f"{name}_scale"), f"{name}_scale")
        return scale if self.config.linear_class == "autobitlinear" else np.float32(1) / scale

    def gain(self, layer: int, part: str) -> np.ndarray:
        return self.checkpoint.float_tensor(self._name(layer, part), (gain_width(self.config, part),))

    def final_gain(self) -> np.ndarray:
        return self.checkpoint.float_tensor(FINAL, (self.config.hidden_size,))

    def embedding(self) -> Rows:
        return _TensorRows(self.checkpoint, EMBEDDING, (self.config.vocabulary, self.config.hidden_size))

    def head(self) -> Rows:
        if HEAD not in self.checkpoint:
            return self.embedding()
        own = _TensorRows(self.checkpoint, HEAD, (self.config.vocabulary, self.config.hidden_size))
        return _SameRows(own, self.embedding()) if self.config.tied_head else own


class _TensorRows:
    def __init__(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int]):
        self._checkpoint, self._name, self.shape = checkpoint, name, shape
        checkpoint.check(name, shape)

    def read(self, first: int, last: int) -> np.ndarray:
        return self._checkpoint.float_rows(self._name, first, last)


class _SameRows:
    """A head that the config ties to the embedding and that the checkpoint has all the same: a copy, or a
    contradiction, which some versions of transformers resolve one way and some the other."""

    def __init__(self, head: Rows, embedding: Rows):
        self._head, self._embedding, self.shape = head, embedding, embedding.shape

    def read(self, first: int, last: int) -> np.ndarray:
        rows = self._embedding.read(first, last)
        differs = (self._head.read(first, last) != rows).any(axis=1)
        if differs.any():
            raise TellmeError(f"tensor {HEAD} differs from {EMBEDDING} (row {first + int(differs.argmax())}), but "
                              "config.json ties them (tie_word_embeddings); set it to false, or remove the tensor")
        return rows
