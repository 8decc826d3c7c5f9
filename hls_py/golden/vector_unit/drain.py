"""Golden of rtl/vector_unit/drain.py: what becomes of a ternary matrix product's integer sums."""

import numpy as np

from hls_py.golden import float32
from hls_py.kernels.gated import gated_relu_squared, gated_silu
from hls_py.kernels.head_quantise import head_scale, quantise_int8
from hls_py.kernels.linear import dequantise_residual, row_scale
from hls_py.kernels.rope import dequantise_rotate
from rtl.contract.command_words import ActivationFunction
from rtl.contract.number_formats import SEGMENT_BYTES, round_up

GATED = {ActivationFunction.SILU: gated_silu, ActivationFunction.RELU_SQUARED: gated_relu_squared}


def row_scales(activation_scale: np.ndarray, weight_scale: float | np.float32) -> np.ndarray:
    """Scale of each row's sums [R]: the activation row's scale times the matrix's."""
    return row_scale(np.asarray(activation_scale, np.float32), np.float32(weight_scale))


def drain_residual(acc: np.ndarray, scale: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """residual + acc·scale; acc int [R, N], scale [R] from ``row_scales``, residual float32 [R, N]."""
    return dequantise_residual(acc, scale[:, None], residual)


def drain_heads(acc: np.ndarray, scale: np.ndarray, cos: np.ndarray | None, sin: np.ndarray | None,
                rotate: bool, head_dim: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Quantised heads: (codes int8 [R, heads, D rounded up to 16], scales as bfloat16 bits [R, heads]).

    Parameters as in :func:`rotated_heads`.
    """
    return quantise_heads(rotated_heads(acc, scale, cos, sin, rotate, head_dim))


def rotated_heads(acc: np.ndarray, scale: np.ndarray, cos: np.ndarray | None, sin: np.ndarray | None,
                  rotate: bool, head_dim: int | None = None) -> np.ndarray:
    """float32 [R, heads, D] before it is quantised.

    acc int [R, heads, D] in rotary-pair order, D counts padding beyond ``head_dim`` (whose sums are zero);
    scale [R] from ``row_scales``; cos, sin float32 [R, head_dim/2]. Without ``rotate`` (values) cos is 1 and sin 0,
    which leaves acc·scale.
    """
    rows, _, dims = acc.shape
    pairs = dims // 2
    cosines, sines = np.ones((rows, 1, pairs), np.float32), np.zeros((rows, 1, pairs), np.float32)
    if rotate:
        assert cos is not None and sin is not None
        cosines[:] = 0
        cosines[:, 0, :cos.shape[1]] = cos
        sines[:, 0, :sin.shape[1]] = sin
    first, second = dequantise_rotate(acc[..., 0::2], acc[..., 1::2], scale[:, None, None], cosines, sines)
    values = np.stack([first, second], axis=-1).reshape(acc.shape)
    values[..., dims if head_dim is None else head_dim:] = 0
    return values


def quantise_heads(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int8 [R, heads, D rounded up to 16], bfloat16 bits [R, heads]) of float32 [R, heads, D]."""
    rows, heads, dims = values.shape
    # Magnitudes order as their bit patterns do, NaN above all.
    absmax = float32.bits_to_float((float32.float_bits(values) & 0x7FFFFFFF).max(axis=-1))
    head_scales, inverse = head_scale(absmax)
    codes = np.zeros((rows, heads, round_up(dims, SEGMENT_BYTES)), np.int8)
    codes[..., :dims] = quantise_int8(values, inverse[..., None])
    return codes, (float32.float_bits(head_scales) >> 16).astype(np.uint16)


def gated(gate: np.ndarray, up: np.ndarray, gate_scale: np.ndarray, up_scale: np.ndarray,
          function: ActivationFunction) -> np.ndarray:
    """act(gate·gate_scale)·(up·up_scale); gate, up int [R, N], scales [R] from ``row_scales``."""
    return GATED[ActivationFunction(function)](gate, up, gate_scale[:, None], up_scale[:, None])
