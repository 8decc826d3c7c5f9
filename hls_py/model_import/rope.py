"""Rotary embeddings: the frequencies of a model's positions, by what its config asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np


@dataclass(frozen=True)
class Llama3Scaling:
    """Long wavelengths are stretched by ``factor``, short ones kept, those between mixed (as Llama 3.1 does)."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_positions: int


@dataclass(frozen=True)
class Rope:
    """Frequency of pair i of d/2: theta^(−2i/d), then scaled by at most one of the others."""

    theta: float
    linear_factor: float = 1.0
    """Positions are divided by it."""
    llama3: Llama3Scaling | None = None
    divisors: tuple[float, ...] | None = None
    """One a pair: what a GGUF file's rope_freqs tensor holds."""

    @property
    def kind(self) -> str:
        """For people: plain, linear, llama3 or divisors."""
        if self.llama3:
            return "llama3"
        return "divisors" if self.divisors else "plain" if self.linear_factor == 1 else "linear"

    @property
    def fastest(self) -> float:
        """Radians a position that no pair's frequency exceeds."""
        slowed = [self.linear_factor, *(self.divisors or ()), *([self.llama3.factor] if self.llama3 else [])]
        return max(1.0, 1 / self.theta) * max(1.0, 1 / min(slowed))

    def frequencies(self, head_dim: int) -> np.ndarray:
        """float32 [head_dim/2], radians a position; every step rounded to float32, as in transformers."""
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        plain = np.float32(1) / _powers(np.float32(self.theta), exponents)
        if self.divisors:
            return (plain / np.asarray(self.divisors, np.float32)).astype(np.float32)
        if self.llama3:
            return _llama3(plain, self.llama3)
        return plain if self.linear_factor == 1 else (plain / np.float32(self.linear_factor)).astype(np.float32)


def _powers(base: np.float32, exponents: np.ndarray) -> np.ndarray:
    """float32 baseᵉ. NumPy's and libm's depend on the CPU, and an image must not; decimals are the same everywhere."""
    with localcontext() as context:
        context.prec = 30
        return np.array([float(Decimal(float(base)) ** Decimal(float(e))) for e in exponents], np.float32)


def _llama3(plain: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
    wavelength = np.float32(2 * math.pi) / plain
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    longest, shortest = scaling.original_positions / low, scaling.original_positions / high
    stretched = np.where(wavelength > longest, plain / np.float32(scaling.factor), plain)
    smooth = (np.float32(scaling.original_positions) / wavelength - np.float32(low)) / np.float32(high - low)
    mixed = (1 - smooth) * stretched / np.float32(scaling.factor) + smooth * stretched
    between = ~(wavelength < shortest) & ~(wavelength > longest)
    return np.where(between, mixed, stretched).astype(np.float32)
