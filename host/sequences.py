"""Sequences on one accelerator: slots, KV blocks, and tokens in passes of as many rows as fit."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

import numpy as np

from host.accelerator import NOTHING, Accelerator, Group, Row, RowResult
from host.errors import HostError
from rtl.contract.number_formats import TILE_POSITIONS
from rtl.contract.pass_descriptor import RowFlag


@dataclass
class Sequence:
    """One conversation's place: a slot, its KV blocks (oldest first) and how many positions are filled."""

    slot: int
    length: int = 0
    blocks: list[int] = field(default_factory=list)


class SequencePool:
    """Gives out slots and KV blocks, and takes them back."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self._free_blocks = list(range(accelerator.map.blocks - 1, -1, -1))
        self._free_slots = list(range(accelerator.params.max_slots - 1, -1, -1))

    def open(self) -> Sequence:
        if not self._free_slots:
            raise HostError(f"all {self.accelerator.params.max_slots} slots are in use; close a sequence first")
        return Sequence(self._free_slots.pop())

    def close(self, sequence: Sequence) -> None:
        """Take back slot and blocks; ``sequence`` must not be used any more."""
        if sequence.slot in self._free_slots:
            raise HostError(f"the sequence of slot {sequence.slot} is closed already")
        self._free_slots.append(sequence.slot)
        self._free_blocks.extend(reversed(sequence.blocks))
        sequence.blocks.clear()
        sequence.length = 0

    def reserve(self, sequence: Sequence, positions: int) -> None:
        """Blocks for ``positions`` more; :class:`HostError` when context or memory is full, and nothing changes."""
        end = sequence.length + positions
        if end > self.accelerator.max_context:
            raise HostError(f"{end} tokens exceed the context of {self.accelerator.max_context}; shorten the prompt, "
                            "or start a new conversation")
        missing = -(-end // TILE_POSITIONS) - len(sequence.blocks)
        if missing > len(self._free_blocks):
            raise HostError(f"the KV cache has {len(self._free_blocks)} free blocks, {missing} are needed; "
                            "close a sequence")
        sequence.blocks += [self._free_blocks.pop() for _ in range(missing)]

    def rewind(self, sequence: Sequence, length: int) -> None:
        """Forget positions from ``length`` on (rejected drafts, tokens behind a stop); blocks stay reserved."""
        if not 0 <= length <= sequence.length:
            raise HostError(f"can't rewind a sequence of {sequence.length} positions to {length}")
        sequence.length = length

    def check(self, sequence: Sequence, tokens: Tokens[int], rows_per_pass: int) -> None:
        """Raises :class:`HostError` when ``feed`` could not run these tokens to their end."""
        limit = self.accelerator.max_rows
        if not 1 <= rows_per_pass <= limit:
            raise HostError(f"rows per pass is {rows_per_pass}; this model on this design runs 1 … {limit}")
        vocabulary = self.accelerator.manifest.vocabulary
        for token in tokens:
            if not 0 <= token < vocabulary:
                raise HostError(f"token {token} is outside the vocabulary of {vocabulary}")
        if sequence.length + len(tokens) > self.accelerator.max_context:
            raise HostError(f"{sequence.length + len(tokens)} tokens exceed the context of "
                            f"{self.accelerator.max_context}; shorten the prompt")

    def feed(self, sequence: Sequence, tokens: Tokens[int], last: RowFlag = NOTHING, every: RowFlag = NOTHING,
             rows_per_pass: int | None = None) -> list[RowResult]:
        """Run ``tokens`` through the model behind what the sequence holds.

        ``every`` is asked of each token's row, ``last`` of the last one as well. Returns a result a token. Whatever it
        raises, the sequence is as long as before and can go on.
        """
        rows = self.accelerator.max_rows if rows_per_pass is None else rows_per_pass
        self.check(sequence, tokens, rows)
        self.reserve(sequence, len(tokens))
        results: list[RowResult] = []
        before = sequence.length
        try:
            for first in range(0, len(tokens), rows):
                part = tokens[first:first + rows]
                flags = [every | (last if first + i == len(tokens) - 1 else NOTHING) for i in range(len(part))]
                rows_of = [Row(int(t), f) for t, f in zip(part, flags)]
                group = Group(sequence.slot, sequence.length, rows_of, sequence.blocks)
                results += self.accelerator.run([group]).rows
                sequence.length += len(part)
        except BaseException:
            sequence.length = before
            raise
        return results


def logits_of(results: list[RowResult]) -> np.ndarray:
    """float32 [n, vocabulary] of results that were asked for LOGITS."""
    return np.stack([r.logits for r in results if r.logits is not None])
