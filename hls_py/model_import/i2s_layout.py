"""Which of I2_S's two layouts a file has: the weights of a trained model tell, since the matrices on both sides of a
vector agree about its channels.

A wrong layout permutes the inputs of every matrix within blocks of 128, the outputs of none. How dense a channel is in
the matrix that writes it (rows of gate and up, of v, of o and down) goes with how dense it is in the one that reads it
(columns of down, of o, of q, k, v, gate and up), in models that were trained; under the wrong layout that is gone.
Each pair of profiles gives n·r² (r: correlation within blocks of 128): where there is no relation, a chi-squared number
of one degree of freedom, mean 1 and variance 2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hls_py.model_import.config import ModelConfig

BLOCK = 128
MAX_LAYERS = 12
LEAST_DEVIATIONS = 8.0
LEAST_RATIO = 4.0


def evidence(matrix: Callable[[int, str], np.ndarray], config: ModelConfig) -> float:
    """How many standard deviations the sum of n·r² lies above its mean without any relation.

    ``matrix(layer, part)`` gives codes [outputs, inputs].
    """
    layers = np.unique(np.linspace(0, config.layers - 1, min(config.layers, MAX_LAYERS)).astype(int))
    scores: list[float] = []
    for layer in layers:
        dense = {part: np.abs(matrix(int(layer), part)) for part in
                 ("query", "key", "value", "output", "gate", "up", "down")}
        rows = {part: codes.mean(axis=1, dtype=np.float64) for part, codes in dense.items()}
        columns = {part: codes.mean(axis=0, dtype=np.float64) for part, codes in dense.items()}
        value = rows["value"].reshape(config.kv_heads, 1, config.head_dim)
        value = np.broadcast_to(value, (config.kv_heads, config.queries_per_kv, config.head_dim)).reshape(-1)
        readers = [columns[part] for part in ("query", "key", "value", "gate", "up")]
        pairs = [(rows["gate"], columns["down"]), (rows["up"], columns["down"]), (value, columns["output"]),
                 *((rows[writer], reader) for writer in ("output", "down") for reader in readers)]
        scores += [_score(a, b) for a, b in pairs]
    return float((np.sum(scores) - len(scores)) / np.sqrt(2 * len(scores)))


def decide(scores: dict[str, float]) -> str | None:
    """The layout whose evidence is overwhelming, or None."""
    (best, high), (_, low) = sorted(scores.items(), key=lambda item: -item[1])
    return best if high > LEAST_DEVIATIONS and high > LEAST_RATIO * low else None


def _score(a: np.ndarray, b: np.ndarray) -> float:
    """n·r² of two profiles over the same channels, their means over blocks of 128 taken away."""
    whole = len(a) // BLOCK * BLOCK
    if not whole:
        return 1.0  # as without any relation
    a, b = (x[:whole].reshape(-1, BLOCK) for x in (a, b))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    power = (a * a).sum() * (b * b).sum()
    return float(whole * (a * b).sum() ** 2 / power) if power > 0 else 1.0
