"""Ternary matrices: unpacked from BitNet's uint8 form, quantised by absmean, or found in floats that are ternary."""

from __future__ import annotations

import numpy as np

from hls_py.errors import TellmeError
from hls_py.model_import.parts import TernaryMatrix

WEIGHTS_PER_BYTE = 4
ABSMEAN_FLOOR = 1e-5
SAME_MAGNITUDE = 1e-6
"""Relative difference up to which two weights count as the same magnitude (one rounding of float32)."""


def unpack_bitnet(stored: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """uint8 [outputs/4, inputs] → int8 [outputs, inputs]: output i·R + r from bits 2i, 2i+1 of row r, minus one."""
    rows = -(-shape[0] // WEIGHTS_PER_BYTE)
    if stored.shape != (rows, shape[1]):
        raise TellmeError(
            f"tensor {name} has packed shape {list(stored.shape)}; the config asks for {[rows, shape[1]]}")
    fields = np.concatenate([(stored >> 2 * i) & 3 for i in range(WEIGHTS_PER_BYTE)])[: shape[0]]
    if fields.max() == 3:
        raise TellmeError(f"tensor {name} holds the code 3, which is not ternary")
    return fields.view(np.int8) - np.int8(1)


def quantise_absmean(weight: np.ndarray) -> TernaryMatrix:
    """BitNet b1.58's weight quantisation: scale = mean|W|, codes = clamp(round(W/scale), -1, 1), ties to even."""
    scale = np.float32(max(np.abs(weight).mean(dtype=np.float64), ABSMEAN_FLOOR))
    inverse = np.float32(1) / scale
    return TernaryMatrix(np.clip(np.rint(weight * inverse), -1, 1).astype(np.int8), scale)


def exactly_ternary(weight: np.ndarray, name: str) -> TernaryMatrix:
    """The matrix of floats that are −s, 0 and s already.

    Raises :class:`TellmeError` when the weights have more than one magnitude.
    """
    magnitudes = np.abs(weight)
    scale = magnitudes.max()
    if scale == 0:
        return TernaryMatrix(np.zeros(weight.shape, np.int8), np.float32(1))
    if ((magnitudes != 0) & (magnitudes < scale * np.float32(1 - SAME_MAGNITUDE))).any():
        raise TellmeError(f"tensor {name} is not ternary: its weights have more than one magnitude "
                          f"({_examples(magnitudes)})")
    return TernaryMatrix(np.sign(weight).astype(np.int8), np.float32(scale))


def _examples(magnitudes: np.ndarray) -> str:
    found = np.unique(magnitudes.reshape(-1)[: 1 << 16])
    found = found[found != 0][::-1]
    return ", ".join(f"{value:.4g}" for value in found[:3]) + (", …" if len(found) > 3 else "")


def checked_scale(values: np.ndarray, name: str) -> np.float32:
    """The one scale of a matrix; raises :class:`TellmeError` for several, or one that isn't positive and finite."""
    if values.dtype.kind in "iub":
        raise TellmeError(f"tensor {name} is {values.dtype}; a float tensor is needed")
    raw = values.astype(np.float32).reshape(-1)
    if raw.size != 1:
        raise TellmeError(f"tensor {name} has {raw.size} values; only one scale a matrix is supported "
                          "(no scales by group, row or shard)")
    if not np.isfinite(raw[0]) or raw[0] < np.finfo(np.float32).tiny:
        raise TellmeError(f"tensor {name} is {raw[0]}; a positive finite number is needed")
    return raw[0]
