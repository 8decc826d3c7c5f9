"""Sampling: greedy, temperature, top-k, top-p, seeds, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from host.accelerator import RowResult
from host.errors import HostError
from host.sampler import Sampler, Sampling
from rtl.contract.pass_descriptor import RowFlag

HARDWARE_TOP_K = 8
LOGITS = np.log(np.array([0.02, 0.4, 0.08, 0.3, 0.2], np.float32))
"""Best first: tokens 1, 3, 4, 2, 0."""


def row(logits: np.ndarray = LOGITS) -> RowResult:
    return RowResult(logits=logits)


def draws(settings: Sampling, count: int = 4000, logits: np.ndarray = LOGITS) -> np.ndarray:
    """Share of every token among ``count`` picks."""
    sampler = Sampler(settings, HARDWARE_TOP_K)
    return np.bincount([sampler.pick(row(logits)) for _ in range(count)], minlength=len(logits)) / count


def test_greedy_takes_the_argmax_of_the_hardware():
    sampler = Sampler(Sampling(temperature=0.0, top_k=3, top_p=0.1), HARDWARE_TOP_K)
    assert sampler.flags == RowFlag.ARGMAX and sampler.pick(RowResult(token=7)) == 7


@pytest.mark.parametrize("top_k, flags", [
    (1, RowFlag.TOP_K), (8, RowFlag.TOP_K), (9, RowFlag.LOGITS), (0, RowFlag.LOGITS)])
def test_asks_for_no_more_than_needed(top_k: int, flags: RowFlag):
    assert Sampler(Sampling(1.0, top_k), HARDWARE_TOP_K).flags == flags


def test_the_same_seed_gives_the_same_tokens():
    def picks(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(1.0, 0, 1.0, seed), HARDWARE_TOP_K)
        return [sampler.pick(row()) for _ in range(60)]

    assert picks(3) == picks(3)
    assert picks(3) != picks(4) and picks(None) != picks(None)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_distribution(temperature: float):
    expected = np.exp(LOGITS.astype(np.float64) / temperature)
    expected /= expected.sum()
    np.testing.assert_allclose(draws(Sampling(temperature, 0, 1.0, 1)), expected, atol=0.03)  # 4 standard deviations


def test_top_k_keeps_the_best():
    share = draws(Sampling(1.0, 2, 1.0, 1))
    np.testing.assert_allclose(share, [0, 4 / 7, 0, 3 / 7, 0], atol=0.03)
    assert draws(Sampling(1.0, 1, 1.0, 1), 50)[1] == 1


@pytest.mark.parametrize("top_p, kept", [
    (1e-9, [1]), (0.39, [1]), (0.41, [1, 3]), (0.85, [1, 3, 4]), (0.97, [1, 2, 3, 4])])
def test_top_p_keeps_the_fewest_that_hold_it(top_p: float, kept: list[int]):
    assert np.flatnonzero(draws(Sampling(1.0, 0, top_p, 1), 1000)).tolist() == kept


def test_top_p_counts_what_top_k_has_left():
    """0.4 of 0.4 + 0.3 is 0.57: above 0.5 among two tokens, below it among all."""
    assert np.flatnonzero(draws(Sampling(1.0, 2, 0.5, 1), 500)).tolist() == [1]
    assert np.flatnonzero(draws(Sampling(1.0, 0, 0.5, 1), 500)).tolist() == [1, 3]


def test_hardware_top_k_gives_the_same_tokens_as_all_logits():
    rng = np.random.default_rng(1)
    from_list, from_logits = (Sampler(Sampling(0.8, 5, 0.9, 11), k) for k in (HARDWARE_TOP_K, 4))
    for _ in range(100):
        logits = np.round(rng.normal(0, 2, 50) * 2).astype(np.float32) / 2  # many ties
        best = np.lexsort((np.arange(50), -logits))[:HARDWARE_TOP_K]
        found = RowResult(top_tokens=best, top_logits=logits[best])
        assert from_list.pick(found) == from_logits.pick(row(logits))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [1e-310, 1e-30, 1e300])
def test_extreme_temperatures(temperature: float):
    sampler = Sampler(Sampling(temperature, 0, 1.0, 1), HARDWARE_TOP_K)
    picked = {sampler.pick(row()) for _ in range(200)}
    assert picked == ({1} if temperature < 1 else {0, 1, 2, 3, 4})


@pytest.mark.parametrize("settings, message", [
    (Sampling(temperature=-0.1), "temperature is -0.1"), (Sampling(temperature=float("nan")), "temperature is nan"),
    (Sampling(temperature=float("inf")), "temperature is inf"), (Sampling(top_k=-1), "top-k is -1"),
    (Sampling(top_p=0.0), "top-p is 0.0"), (Sampling(top_p=1.01), "top-p is 1.01"),
    (Sampling(top_p=float("nan")), "top-p is nan"), (Sampling(seed=-1), "seed is -1")])
def test_refusals(settings: Sampling, message: str):
    with pytest.raises(HostError, match=message):
        Sampler(settings, HARDWARE_TOP_K)


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(HostError, match="not a number"):
        Sampler(Sampling(1.0, 0), HARDWARE_TOP_K).pick(row(np.array([0, np.nan], np.float32)))
