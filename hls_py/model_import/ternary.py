"""Ternary matrices: unpacked from BitNet's uint8 form, or quantised by absmean from full precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hls_py.errors import TellmeError
from hls_py.model_import.checkpoint import Checkpoint

WEIGHTS_PER_BYTE = 4
ABSMEAN_FLOOR = 1e-5


@dataclass(frozen=True)
class TernaryMatrix:
    """``weight ≈ scale · codes``; codes int8 in {-1, 0, 1}, shape [outputs, inputs]."""

    codes: np.ndarray
    scale: np.float32


def read_ternary(checkpoint: Checkpoint, name: str, shape: tuple[int, int], linear_class: str) -> TernaryMatrix:
    """The matrix ``name``.weight of ``shape`` [outputs, inputs].

    ``linear_class`` says how a stored scale is meant: 'autobitlinear' multiplies, 'bitlinear' divides (FACTS of the
    checkpoint's own library; the wrong choice fails silently, so it is never guessed).
    """
    stored = checkpoint.tensor(f"{name}.weight")
    if stored.dtype != np.uint8:
        return quantise_absmean(checkpoint.float_tensor(f"{name}.weight", shape))
    codes = unpack_bitnet(stored, shape, name)
    scale_name = f"{name}.weight_scale"
    raw = checkpoint.tensor(scale_name).astype(np.float32).reshape(-1)
    if raw.size != 1:
        raise TellmeError(f"tensor {scale_name} has {raw.size} values; only one scale a matrix is supported")
    if not np.isfinite(raw[0]) or raw[0] <= 0:
        raise TellmeError(f"tensor {scale_name} is {raw[0]}; a positive finite number is needed")
    return TernaryMatrix(codes, raw[0] if linear_class == "autobitlinear" else np.float32(1) / raw[0])


def unpack_bitnet(stored: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """uint8 [outputs/4, inputs] → int8 [outputs, inputs]: output i·R + r from bits 2i, 2i+1 of row r, minus one."""
    rows = -(-shape[0] // WEIGHTS_PER_BYTE)
    if stored.shape != (rows, shape[1]):
        raise TellmeError(
            f"tensor {name}.weight has packed shape {list(stored.shape)}; the config asks for {[rows, shape[1]]}")
    fields = np.concatenate([(stored >> 2 * i) & 3 for i in range(WEIGHTS_PER_BYTE)])[: shape[0]]
    if (fields == 3).any():
        raise TellmeError(f"tensor {name}.weight holds the code 3, which is not ternary")
    return fields.astype(np.int8) - np.int8(1)


def quantise_absmean(weight: np.ndarray) -> TernaryMatrix:
    """BitNet b1.58's weight quantisation: scale = mean|W|, codes = clamp(round(W/scale), -1, 1), ties to even."""
    scale = np.float32(max(np.abs(weight).mean(dtype=np.float64), ABSMEAN_FLOOR))
    inverse = np.float32(1) / scale
    return TernaryMatrix(np.clip(np.rint(weight * inverse), -1, 1).astype(np.int8), scale)
