"""Chooses a token from logits: temperature, top-k, top-p, with a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from host.accelerator import RowResult
from host.errors import HostError
from rtl.contract.pass_descriptor import RowFlag


@dataclass(frozen=True)
class Sampling:
    """``temperature`` 0 is greedy; top-p applies after top-k; ``top_k`` 0 means all tokens."""

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 1.0
    seed: int | None = None

    def check(self) -> None:
        """Raises :class:`HostError` naming the setting that can't be used."""
        if not 0 <= self.temperature < float("inf"):
            raise HostError(f"temperature is {self.temperature}; it must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise HostError(f"top-p is {self.top_p}; it must be above 0 and at most 1")
        if self.top_k < 0:
            raise HostError(f"top-k is {self.top_k}; it must be 0 (all tokens) or more")
        if self.seed is not None and self.seed < 0:
            raise HostError(f"seed is {self.seed}; it must be 0 or more")


class Sampler:
    """Asks a row for as little as the settings need, and picks."""

    def __init__(self, settings: Sampling, hardware_top_k: int):
        settings.check()
        self.settings, self.hardware_top_k = settings, hardware_top_k
        self._random = np.random.default_rng(settings.seed)

    @property
    def flags(self) -> RowFlag:
        """What the last row of a pass must give."""
        s = self.settings
        if s.temperature == 0:
            return RowFlag.ARGMAX
        return RowFlag.TOP_K if 1 <= s.top_k <= self.hardware_top_k else RowFlag.LOGITS

    def pick(self, row: RowResult) -> int:
        s = self.settings
        if s.temperature == 0:
            assert row.token is not None
            return row.token
        if row.top_tokens is not None and row.top_logits is not None:
            tokens, logits = row.top_tokens, row.top_logits
        else:
            assert row.logits is not None
            tokens = np.argsort(-row.logits, kind="stable")
            logits = row.logits[tokens]
        if s.top_k:
            tokens, logits = tokens[:s.top_k], logits[:s.top_k]
        if not np.isfinite(logits).all():
            raise HostError("logits are infinite or not a number; the model can't be sampled from")
        with np.errstate(over="ignore"):  # the smallest temperatures: exp(−∞) is 0
            weights = np.exp((logits.astype(np.float64) - float(logits[0])) / s.temperature)
        weights /= weights.sum()
        # The smallest set of best tokens that holds top_p of the probability.
        keep = min(int(np.searchsorted(np.cumsum(weights), s.top_p * (1 - 1e-12))) + 1, len(weights))
        weights = weights[:keep] / weights[:keep].sum()
        return int(tokens[self._random.choice(keep, p=weights)])
