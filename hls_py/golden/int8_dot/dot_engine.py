"""Golden of rtl/int8_dot/dot_engine.py."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Beat:
    """``segments`` int8 [S, 16] against operand words ``operand + turn·turn_stride``, turns 0 … ``turns`` − 1."""

    segments: np.ndarray
    operand: int
    turns: int
    turn_stride: int
    first: bool
    last: bool
    tag: int = 0


@dataclass(frozen=True)
class Result:
    """Sums ``dots`` int32 [A, S] of one turn."""

    turn: int
    tag: int
    dots: np.ndarray


def dot_engine(operands: np.ndarray, beats: Iterable[Beat]) -> list[Result]:
    """Results of ``beats`` in order; operands int8 [words, A, 16]."""
    words = operands.astype(np.int32)
    sums: dict[int, np.ndarray] = {}
    results = []
    for beat in beats:
        segments = beat.segments.astype(np.int32)
        for turn in range(beat.turns):
            dots = words[beat.operand + turn * beat.turn_stride] @ segments.T
            dots = dots if beat.first else sums[turn] + dots
            if beat.last:
                results.append(Result(turn, beat.tag, dots))
            else:
                sums[turn] = dots
    return results
