"""Accuracy and edge cases of the arithmetic kernels against float64, exhaustive where that is possible."""

import numpy as np
import pytest

from hls_py.golden import float32
from hls_py.kernels.exp2_fixed import exp2_fixed
from hls_py.kernels.gated import gated_activation, gated_silu
from hls_py.kernels.head_quantise import head_scale
from hls_py.kernels.norm import norm_finalise, norm_quantise
from hls_py.kernels.reciprocal import reciprocal
from hls_py.kernels.rsqrt import rsqrt
from hls_py.kernels.silu import relu_squared, silu

MANTISSAS = np.arange(1 << 23, dtype=np.uint32)
NAN_BITS = 0x7FC00000


def bits(x) -> list[int]:
    return np.asarray(x, np.float32).reshape(-1).view(np.uint32).tolist()


def ulp_error(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    return np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_reciprocal_is_within_its_bound_on_every_mantissa():
    x = (MANTISSAS | 0x3F800000).view(np.float32)
    found = reciprocal(x)
    assert ulp_error(found, 1 / x.astype(np.float64)).max() < 0.84
    assert found[0] == 1


@pytest.mark.parametrize("exponent", [1, 2, 126, 128, 200, 252, 253, 254])
def test_reciprocal_is_the_same_at_every_exponent(exponent: int):
    mantissas = MANTISSAS[::4097]
    x = (mantissas | np.uint32(exponent << 23)).view(np.float32)
    exact = reciprocal((mantissas | 0x3F800000).view(np.float32)).astype(np.float64) * 2.0 ** (127 - exponent)
    expected = np.where(exact < 2.0**-126, 0, exact)
    assert np.array_equal(reciprocal(x), expected.astype(np.float32))
    assert np.array_equal(reciprocal(-x), -expected.astype(np.float32))


def test_reciprocal_of_special_values():
    inf = np.inf
    assert bits(reciprocal(f32(0, -0.0, inf, -inf, 1e-40, -1e-40))) == bits(f32(inf, -inf, 0, -0.0, inf, -inf))
    assert bits(reciprocal(np.array([0x7F800001, 0xFFC00000], np.uint32).view(np.float32))) == [NAN_BITS, NAN_BITS]


@pytest.mark.parametrize("exponent", [127, 128])
def test_rsqrt_is_within_its_bound_on_every_mantissa(exponent: int):
    x = (MANTISSAS | np.uint32(exponent << 23)).view(np.float32)
    assert ulp_error(rsqrt(x), 1 / np.sqrt(x.astype(np.float64))).max() < 0.68


def test_rsqrt_at_every_exponent():
    x = (np.uint32(0x00400000) + (np.arange(1, 255, dtype=np.uint32) << 23)).view(np.float32)
    assert ulp_error(rsqrt(x), 1 / np.sqrt(x.astype(np.float64))).max() < 0.68
    powers = 4.0 ** np.arange(-63, 64)
    assert np.array_equal(rsqrt(powers.astype(np.float32)), (1 / np.sqrt(powers)).astype(np.float32))


def test_rsqrt_of_special_values():
    assert bits(rsqrt(f32(0, -0.0, np.inf, 1e-40, -1e-40))) == bits(f32(np.inf, np.inf, 0, np.inf, np.inf))
    assert bits(rsqrt(f32(-1, -np.inf, np.nan, -(2.0**-126)))) == [NAN_BITS] * 4


def test_silu_is_within_its_bound():
    rng = np.random.default_rng(3)
    spans = [(-1, 1), (-8, 8), (-32, -4), (-1e-3, 1e-3), (8, 33)]
    x = np.concatenate([rng.uniform(*span, 2_000_000) for span in spans]).astype(np.float32)
    exact = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64)))
    found = silu(x)
    assert ulp_error(found, exact)[x >= -4].max() < 4
    assert ulp_error(found, exact)[x >= 0].max() < 2.5
    assert np.abs(found - exact)[x < -4].max() < 2.0**-24


def test_silu_of_special_values():
    assert bits(silu(f32(0, -0.0, np.inf, -np.inf, -33, 40, 1e-40))) == bits(f32(0, -0.0, np.inf, -0.0, -0.0, 40, 0))
    assert bits(silu(f32(np.nan))) == [NAN_BITS]


def test_relu_squared():
    assert bits(relu_squared(f32(-3, 3, -0.0, np.inf, -np.inf, 1e-30))) == bits(f32(0, 9, 0, np.inf, 0, 0))
    assert bits(relu_squared(f32(np.nan))) == [NAN_BITS]


def test_exp2_is_within_its_bound_and_monotone():
    steps = np.arange(1 << 22, dtype=np.float64) / (1 << 22)
    previous = 1 << 20
    for whole in (0, 1, 2, 5, 12, 20, 21):
        x = -(whole + steps).astype(np.float32)
        found = exp2_fixed(x).astype(np.int64)
        assert np.abs(found / 2**20 - 2.0 ** x.astype(np.float64)).max() < 0.74 * 2.0**-19
        assert (np.diff(found) <= 0).all() and found[0] <= previous
        previous = found[-1]


def test_exp2_never_decreases_across_whole_numbers():
    x = np.float32(0)
    points = [x]
    for whole in range(1, 23):
        below = np.float32(-whole)
        points += [np.nextafter(below, np.float32(0)), below, np.nextafter(below, np.float32(-99))]
    assert (np.diff(exp2_fixed(np.array(points, np.float32)).astype(int)) <= 0).all()


def test_exp2_of_special_values():
    x = f32(0, -0.0, 1, np.inf, -np.inf, np.nan, -40.5, -1e-9, -64, -1e30, -1e-40)
    assert exp2_fixed(x).tolist() == [1 << 20] * 4 + [0, 0, 0, 1 << 20, 0, 0, 1 << 20]


def test_head_scale_rounds_up_and_inverts():
    absmax = np.abs(np.random.default_rng(4).normal(size=10_000)).astype(np.float32)
    scale, inverse = head_scale(absmax)
    assert (np.array(bits(scale)) & 0xFFFF == 0).all()
    exact = absmax * np.float32(1 / 127)
    assert (scale >= exact).all() and (scale <= exact * np.float32(1 + 2**-7)).all()
    assert np.array_equal(inverse, reciprocal(scale))
    assert head_scale(f32(0)) == (0, 0)


def test_norm_against_its_formula():
    rng = np.random.default_rng(5)
    x, gain = rng.normal(size=(2, 1536)).astype(np.float32)
    eps = np.float32(1e-5)
    sum_squares = np.float32((x.astype(np.float64) ** 2).sum())
    absmax = np.abs(x * gain).max()
    inv, scale = norm_finalise(sum_squares, absmax, np.float32(1 / 1536), eps, True)
    row = x.astype(np.float64) * gain / np.sqrt((x.astype(np.float64) ** 2).mean() + eps)
    q = norm_quantise(x, gain, True, inv)
    assert np.abs(q * np.float64(scale) - row).max() <= np.abs(row).max() / 127 * 0.501
    assert np.abs(q).max() == 127
    inv, scale = norm_finalise(f32(0), f32(0), np.float32(1 / 1536), eps, True)
    assert np.array_equal(norm_quantise(np.zeros(4, np.float32), gain[:4], True, inv), [0, 0, 0, 0])
    assert np.isclose(scale[0], 1e-5 / 127)


def test_activation_by_name():
    assert gated_activation("silu") is gated_silu
    with pytest.raises(ValueError, match="gelu"):
        gated_activation("gelu")


def test_float32_flushes_by_the_exact_product():
    """(1 − 2⁻²⁴)·2⁻¹²⁶ rounds to 2⁻¹²⁶ and is below it."""
    a, b = f32(1 - 2.0**-24), f32(2.0**-126)
    assert (a * b)[0] == 2.0**-126
    assert bits(float32.multiply(a, b)) == [0] and bits(float32.multiply(-a, b)) == [1 << 31]
    assert bits(float32.scale_exponent(f32(2.0 - 2.0**-23), -127 + 1)) == bits(f32((2 - 2.0**-23) * 2.0**-126))


def test_float32_orders_zeros_and_propagates_nan():
    zeros, swapped = f32(0, -0.0, 0, -0.0), f32(0, 0, -0.0, -0.0)
    assert bits(float32.maximum(zeros, swapped)) == bits(f32(0, 0, 0, -0.0))
    assert bits(float32.minimum(zeros, swapped)) == bits(f32(0, -0.0, -0.0, -0.0))
    assert bits(float32.maximum(f32(np.nan, 1), f32(1, -np.nan))) == [NAN_BITS] * 2
