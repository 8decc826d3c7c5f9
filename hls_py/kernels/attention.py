"""Scores, softmax weights and the merging of tiles.

Scores are in base 2: log2(e)/√head_dim is folded into the query's scale, so that exp is 2ˣ (``exp2_fixed``). A tile's
weights are quantised to 14 bits by their own maximum; its partial output joins the running output like this:

    m' = max(m, m_tile);  α = 2^(m − m');  β = 2^(m_tile − m');  l' = l·α + l_tile·β;  o' = o·α + acc·(c·β)
"""

from typing import NamedTuple

from hls_py.dataflow import Bit, Float32, Int32, Scalar, float_bits, kernel, maximum, rint_clamp, select, to_float
from hls_py.kernels.exp2_fixed import exp2_fixed
from hls_py.kernels.reciprocal import reciprocal
from rtl.contract.number_formats import EXP_FRACTION_BITS, WEIGHT_MAX


class SoftmaxWeight(NamedTuple):
    exponential: Int32
    weight: Float32


class WeightScale(NamedTuple):
    scale: Float32
    inverse: Float32


class MergeFactors(NamedTuple):
    m_new: Float32
    alpha: Float32
    beta: Float32
    l_new: Float32
    cb: Float32


@kernel
def query_scale(q_scale: Float32, factor: Scalar[Float32]) -> Float32:
    """q_scale·factor, factor = log2(e)/√head_dim."""
    return q_scale * factor


@kernel
def score(dot: Int32, q: Scalar[Float32], k_scale: Float32) -> Float32:
    """(dot·q)·k_scale: a base-2 score."""
    return (to_float(dot) * q) * k_scale


@kernel
def softmax_weight(score: Float32, maximum: Scalar[Float32], v_scale: Float32) -> SoftmaxWeight:
    """2^(score − maximum) with 20 fraction bits, and times the value's scale (not divided by 2²⁰)."""
    exponential = exp2_fixed(score - maximum)
    return SoftmaxWeight(exponential, to_float(exponential) * v_scale)


@kernel
def weight_scale(max_weight: Float32) -> WeightScale:
    """c = max_weight/16383 and its reciprocal (0 where every weight is 0)."""
    inverse = select(max_weight == 0.0, 0.0, reciprocal(max_weight) * WEIGHT_MAX)
    return WeightScale(max_weight * (1 / WEIGHT_MAX), inverse)


@kernel
def weight_quantise(weight: Float32, inverse: Scalar[Float32]) -> Int32:
    """clamp(rint(weight·inverse), 0 … 16383)."""
    return rint_clamp(weight * inverse, 0, WEIGHT_MAX)


@kernel
def merge_factors(m: Float32, m_tile: Float32, l: Float32, l_tile: Int32, c: Float32, first: Bit) -> MergeFactors:
    """How a tile joins the running output; ``first``: the first visible tile, for which m and l are not read."""
    m_new = select(first, m_tile, maximum(m, m_tile))
    # One of the two is the maximum: 2⁰ needs no exponential (∞ − ∞ is NaN and counts as 0), and its sum no product.
    tile_is_larger = m <= m_tile
    larger = select(float_bits(m_new)[23:31] == 255, 0.0, 1.0)
    smaller = _exp2(select(tile_is_larger, m, m_tile) - m_new)
    alpha = select(first, 0.0, select(tile_is_larger, smaller, larger))
    beta = select(first | tile_is_larger, larger, smaller)
    tile_sum = to_float(l_tile)
    larger_sum = select(larger == 0.0, 0.0, select(tile_is_larger, tile_sum, l))
    joined = larger_sum + select(tile_is_larger, l, tile_sum) * smaller
    return MergeFactors(m_new, alpha, beta, select(first, tile_sum, joined), c * beta)


def _exp2(x: Float32) -> Float32:
    return to_float(exp2_fixed(x)) * 2.0**-EXP_FRACTION_BITS


@kernel
def merge_output(o: Float32, acc: Int32, alpha: Scalar[Float32], cb: Scalar[Float32],
                 first: Scalar[Bit]) -> Float32:
    """o·α + acc·cb; the first tile's is acc·cb alone."""
    tile = to_float(acc) * cb
    return select(first, tile, o * alpha + tile)


@kernel
def attention_output(o: Float32, inverse_sum: Scalar[Float32]) -> Float32:
    """o/l."""
    return o * inverse_sum
