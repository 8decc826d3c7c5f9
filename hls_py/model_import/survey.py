"""Looks at everything in a model, so that one run names all that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hls_py.errors import TellmeError
from hls_py.model_import.model import Model
from hls_py.model_import.parts import GAINS, MATRICES, Rows, matrix_shape
from hls_py.model_import.refusals import Unsupported

CHUNK_ROWS = 4096


@dataclass
class Survey:
    """``items``: every reason why the model can't run; ``model`` is None where there are some from the start."""

    items: list[str] = field(default_factory=list)
    model: Model | None = None
    zeros: float | None = None
    """Share of zeros among the ternary weights; None where they weren't read."""

    @property
    def ternary_weights(self) -> int:
        assert self.model
        c = self.model.config
        return c.layers * sum(int(np.prod(matrix_shape(c, part))) for part in MATRICES)

    @property
    def other_weights(self) -> int:
        """Gains, embedding, and a head that isn't tied."""
        assert self.model
        c, m = self.model.config, self.model
        gains = 2 * c.hidden_size + m.has_attention_sub_norm * c.query_width + m.has_ffn_sub_norm * c.intermediate_size
        return c.hidden_size * (1 + c.vocabulary * (1 if c.tied_head else 2)) + c.layers * gains


def survey(path: Path, i2s_layout: str | None = None, values: bool = True, progress: bool = False) -> Survey:
    """Raises nothing that :class:`TellmeError` says; it becomes an item. ``values``: read every tensor, too."""
    found = Survey()
    try:
        found.model = Model(path, i2s_layout)
    except Unsupported as error:
        found.items = error.items
    except TellmeError as error:
        found.items = [str(error)]
    if found.model and values:
        _read_all(found, found.model, progress)
    return found


def _read_all(found: Survey, model: Model, progress: bool) -> None:
    def attempt(read: Callable[[], object]) -> None:
        try:
            read()
        except TellmeError as error:
            found.items.append(str(error))

    nonzero = 0

    def matrix(layer: int, part: str) -> None:
        nonlocal nonzero
        nonzero += int(np.count_nonzero(model.source.matrix(layer, part).codes))

    c = model.config
    present = {"attention_gain": model.has_attention_sub_norm, "ffn_gain": model.has_ffn_sub_norm}
    for layer in tqdm(range(c.layers), desc="reading layers", unit="layer", disable=not progress):
        for part in MATRICES:
            attempt(lambda layer=layer, part=part: matrix(layer, part))  # type: ignore[misc]
        for part in GAINS:
            if present.get(part, True):
                attempt(lambda layer=layer, part=part: model.source.gain(layer, part))  # type: ignore[misc]
    attempt(model.final_gain)
    if not c.tied_head:
        attempt(lambda: _read_rows(model.embedding_rows()))
    attempt(lambda: _read_rows(model.head_rows()))
    found.zeros = 1 - nonzero / found.ternary_weights


def _read_rows(rows: Rows) -> None:
    for first in range(0, rows.shape[0], CHUNK_ROWS):
        rows.read(first, min(first + CHUNK_ROWS, rows.shape[0]))
