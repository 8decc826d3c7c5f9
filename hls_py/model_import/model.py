"""A model as packing sees it: config, and each layer's tensors when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hls_py.model_import.config import ModelConfig
from hls_py.model_import.parts import Rows, Source, TernaryMatrix
from hls_py.model_import.source import open_source


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
    """Lazily read model (a Hugging Face folder or a GGUF file); every access checks names, shapes and values.

    ``i2s_layout``: 'x86' or 'arm' for a GGUF file with I2_S tensors; None finds out from the data or refuses.
    Raises :class:`hls_py.errors.TellmeError` on construction when config or files can't be used, or a tensor is
    missing.
    """

    def __init__(self, path: Path, i2s_layout: str | None = None):
        self.path = path
        self.source: Source = open_source(path, i2s_layout)
        self.config: ModelConfig = self.source.config

    @property
    def has_attention_sub_norm(self) -> bool:
        return self.source.has_attention_sub_norm

    @property
    def has_ffn_sub_norm(self) -> bool:
        return self.source.has_ffn_sub_norm

    def layer(self, index: int) -> Layer:
        s = self.source
        return Layer(
            input_gain=s.gain(index, "input_gain"),
            query=s.matrix(index, "query"), key=s.matrix(index, "key"), value=s.matrix(index, "value"),
            attention_gain=s.gain(index, "attention_gain") if self.has_attention_sub_norm else None,
            output=s.matrix(index, "output"),
            post_attention_gain=s.gain(index, "post_attention_gain"),
            gate=s.matrix(index, "gate"), up=s.matrix(index, "up"),
            ffn_gain=s.gain(index, "ffn_gain") if self.has_ffn_sub_norm else None,
            down=s.matrix(index, "down"),
        )

    def layer_input_gain(self, index: int) -> np.ndarray:
        """The input norm's gains of a layer, without its matrices."""
        return self.source.gain(index, "input_gain")

    def final_gain(self) -> np.ndarray:
        return self.source.final_gain()

    def embedding_rows(self) -> Rows:
        """[vocabulary, hidden], read a piece at a time."""
        return self.source.embedding()

    def head_rows(self) -> Rows:
        """[vocabulary, hidden]; the embedding where the head is tied."""
        return self.source.head()

    def embedding(self) -> np.ndarray:
        """float32 [vocabulary, hidden], whole: for small models and oracles."""
        return _whole(self.embedding_rows())

    def head(self) -> np.ndarray:
        """float32 [vocabulary, hidden], whole."""
        return _whole(self.head_rows())


def _whole(rows: Rows) -> np.ndarray:
    return rows.read(0, rows.shape[0])
