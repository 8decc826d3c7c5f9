"""The parts of a decoder layer, and their shapes by config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hls_py.model_import.config import ModelConfig

MATRICES = ("query", "key", "value", "output", "gate", "up", "down")
GAINS = ("input_gain", "attention_gain", "post_attention_gain", "ffn_gain")


@dataclass(frozen=True)
class TernaryMatrix:
    """``weight ≈ scale · codes``; codes int8 in {-1, 0, 1}, shape [outputs, inputs]."""

    codes: np.ndarray
    scale: np.float32


class Rows(Protocol):
    """A matrix [rows, width] that is read a piece at a time."""

    shape: tuple[int, int]

    def read(self, first: int, last: int) -> np.ndarray:
        """float32 rows ``first`` … ``last − 1``; raises :class:`hls_py.errors.TellmeError` when one isn't finite."""
        ...


class Source(Protocol):
    """A checkpoint in some format, by the parts that a model has. Everything is read when it is asked for."""

    config: ModelConfig
    has_attention_sub_norm: bool
    has_ffn_sub_norm: bool
    formats: dict[str, str]
    """What is stored how, for people: 'matrices', 'embedding', 'head' → a type's name."""

    def gain(self, layer: int, part: str) -> np.ndarray:
        """float32 [width] of one of GAINS."""
        ...

    def matrix(self, layer: int, part: str) -> TernaryMatrix:
        """One of MATRICES."""
        ...

    def final_gain(self) -> np.ndarray: ...

    def embedding(self) -> Rows: ...

    def head(self) -> Rows:
        """The embedding where the head is tied."""
        ...


def matrix_shape(config: ModelConfig, part: str) -> tuple[int, int]:
    """[outputs, inputs]."""
    c = config
    return {"query": (c.query_width, c.hidden_size), "key": (c.kv_width, c.hidden_size),
            "value": (c.kv_width, c.hidden_size), "output": (c.hidden_size, c.query_width),
            "gate": (c.intermediate_size, c.hidden_size), "up": (c.intermediate_size, c.hidden_size),
            "down": (c.hidden_size, c.intermediate_size)}[part]


def gain_width(config: ModelConfig, part: str) -> int:
    return {"attention_gain": config.query_width, "ffn_gain": config.intermediate_size}.get(part, config.hidden_size)
