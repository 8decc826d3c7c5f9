"""What a model that others wrote gives, and which of them to ask."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from hls_py.errors import TellmeError
from hls_py.model_import.source import is_gguf

TRANSFORMERS, LLAMA_CPP = ORACLES = ("transformers", "llama.cpp")

Blocks = dict[str, np.ndarray]
"""'<layer>.<block>' → [rows, width], as golden's recorder names them, rows of all sequences one after the other."""


class Oracle(Protocol):
    name: str
    """For people."""

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """float32 [sequences, n, vocabulary] of token ids [sequences, n], each sequence by itself."""
        ...


class LayeredOracle(Oracle, Protocol):
    """One that can be watched from within."""

    def logits_and_blocks(self, tokens: np.ndarray) -> tuple[np.ndarray, Blocks]: ...


def choose(path: Path, asked: str | None = None, layers: bool = False) -> tuple[str, str]:
    """The oracle to ask, and in a few words why: the one asked for, or llama.cpp for GGUF files where that can be.

    Raises :class:`TellmeError` when the one asked for can't do it.
    """
    from hls_py.oracles.llama_cpp_model import reason_against
    if asked == LLAMA_CPP:
        reason = "it shows logits only, and --layers wants more" if layers else reason_against(path)
        if reason:
            raise TellmeError(f"llama.cpp can't be compared with: {reason}; use --against {TRANSFORMERS}")
    if asked:
        return asked, "as asked"
    if not is_gguf(path):
        return TRANSFORMERS, "for it is a model folder"
    reason = "llama.cpp shows no layers" if layers else reason_against(path)
    return (TRANSFORMERS, f"for {reason}") if reason else (LLAMA_CPP, "for it is a GGUF file")


def open_oracle(which: str, path: Path, i2s_layout: str | None = None) -> Oracle:
    """Raises :class:`TellmeError` when it isn't installed, or can't compute this model."""
    if which == LLAMA_CPP:
        from hls_py.oracles.llama_cpp_model import LlamaCppModel
        return LlamaCppModel(path)
    return open_layered_oracle(path, i2s_layout)


def open_layered_oracle(path: Path, i2s_layout: str | None = None) -> LayeredOracle:
    """transformers: the only one whose layers can be watched."""
    from hls_py.oracles.transformers_model import TransformersModel
    return TransformersModel(path, i2s_layout)
