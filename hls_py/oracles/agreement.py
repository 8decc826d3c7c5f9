"""How far two models agree: logits on a text, and what each block of each layer puts out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hls_py.golden.machine.recorder import BLOCKS, EMBEDDING


@dataclass(frozen=True)
class Agreement:
    """How far two models' logits [positions, vocabulary] agree on a text."""

    positions: int
    argmax_agreement: float
    kl_nats: float
    """Mean KL divergence of golden's distribution from the oracle's."""
    nats_per_token: float
    """Of golden."""
    oracle_nats_per_token: float
    perplexity_ratio: float
    """Golden's perplexity over the oracle's."""
    mean_logit_error: float
    """Mean |difference| over the standard deviation of the oracle's logits."""
    sequence_nats: list[float]
    """Nats a token of golden, by sequence."""
    oracle_sequence_nats: list[float]


@dataclass(frozen=True)
class PerplexityDifference:
    """Of two models on the same sequences: (perplexity / the other's − 1), and its standard error.

    The error is that of the mean difference of nats over the sequences; NaN for a single one.
    """

    relative: float
    standard_error: float

    def __str__(self) -> str:
        spread = "" if np.isnan(self.standard_error) else f" ± {100 * self.standard_error:.3f} %"
        return f"{100 * self.relative:+.3f} %{spread}"


def perplexity_difference(nats: list[float], others: list[float]) -> PerplexityDifference:
    """Of nats a token by sequence."""
    differences = np.subtract(nats, others)
    ratio, count = float(np.exp(differences.mean())), len(differences)
    error = float(differences.std(ddof=1)) / count**0.5 if count > 1 else float("nan")
    return PerplexityDifference(ratio - 1, ratio * error)


@dataclass(frozen=True)
class BlockError:
    """Difference of one block's outputs: a row's is its mean |difference| over the oracle row's deviation."""

    layer: int
    block: str
    mean: float
    worst: float
    worst_row: int
    first_row: int | None
    """First row beyond the tolerance, if there is one."""


def compare(ours: np.ndarray, theirs: np.ndarray, tokens: np.ndarray) -> Agreement:
    """Figures of logits [sequences, n, vocabulary] over all positions; nats over those that have a next token."""
    mine: list[float] = []
    their: list[float] = []
    kl, same, error, theirs_std = 0.0, 0, 0.0, float(theirs.std())
    for a, b, ids in zip(ours, theirs, tokens):  # a sequence at a time: vocabularies are large
        log_a, log_b = log_softmax(a), log_softmax(b)
        kl += float((np.exp(log_b) * (log_b - log_a)).sum(axis=-1).mean())
        mine.append(-float(np.take_along_axis(log_a[:-1], ids[1:, None], axis=-1).mean()))
        their.append(-float(np.take_along_axis(log_b[:-1], ids[1:, None], axis=-1).mean()))
        same += int((a.argmax(-1) == b.argmax(-1)).sum())
        error += float(np.abs(a - b).mean())
    count = len(tokens)
    nats, oracle_nats = float(np.mean(mine)), float(np.mean(their))
    return Agreement(
        positions=tokens.size, argmax_agreement=same / tokens.size, kl_nats=kl / count, nats_per_token=nats,
        oracle_nats_per_token=oracle_nats, perplexity_ratio=float(np.exp(nats - oracle_nats)),
        mean_logit_error=error / count / theirs_std, sequence_nats=mine, oracle_sequence_nats=their)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64 over the last axis."""
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def nats_of(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """[sequences, n − 1]: what each next token cost."""
    return np.stack([-np.take_along_axis(log_softmax(row[:-1]), ids[1:, None], axis=-1)[:, 0]
                     for row, ids in zip(logits, tokens)])


def compare_blocks(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float) -> list[BlockError]:
    """Every block that both have, in the order of the computation. Golden's padding beyond the width is left out."""
    def order(name: str) -> tuple[int, int]:
        layer, block = name.split(".")
        return int(layer), (EMBEDDING, *BLOCKS).index(block)

    out = []
    for name in sorted(ours.keys() & theirs.keys(), key=order):
        layer, block = name.split(".")
        reference = theirs[name].astype(np.float64)
        mine = ours[name][:, :reference.shape[1]]
        deviation = reference.std(axis=1)
        rows = np.abs(mine - reference).mean(axis=1) / np.where(deviation == 0, 1, deviation)
        rows = np.where(np.isnan(rows), np.inf, rows)
        beyond = np.flatnonzero(rows > tolerance)
        out.append(BlockError(int(layer), block, float(rows.mean()), float(rows.max()), int(rows.argmax()),
                              int(beyond[0]) if len(beyond) else None))
    return out


def first_divergence(errors: list[BlockError], tolerance: float) -> BlockError | None:
    """The first block whose mean error is beyond ``tolerance``; single rows flip further now and then."""
    return next((error for error in errors if not error.mean <= tolerance), None)
