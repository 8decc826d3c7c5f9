"""A conversation on one sequence: prompts in, tokens out, one KV cache over all turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from host.accelerator import Accelerator, RowResult
from host.errors import HostError
from host.sampler import Sampler, Sampling
from host.sequences import SequencePool


@dataclass
class Speed:
    """What prompts and generated tokens took, counted in cycles of the design where the device has them."""

    prompt_tokens: int = 0
    prompt_cycles: int = 0
    tokens: int = 0
    cycles: int = 0
    seconds: float = 0.0

    def add(self, other: Speed) -> None:
        self.prompt_tokens += other.prompt_tokens
        self.prompt_cycles += other.prompt_cycles
        self.tokens += other.tokens
        self.cycles += other.cycles
        self.seconds += other.seconds


class Session:
    """Generates on one sequence of ``accelerator``; several turns keep what came before."""

    def __init__(self, accelerator: Accelerator, sampling: Sampling | None = None,
                 stop_tokens: frozenset[int] = frozenset(), pool: SequencePool | None = None):
        self.accelerator = accelerator
        self.pool = pool or SequencePool(accelerator)
        self.sequence = self.pool.open()
        self.sampler = Sampler(sampling or Sampling(), accelerator.manifest.top_k)
        self.stop_tokens = stop_tokens
        self.speed = Speed()
        self._pending: int | None = None

    def _cycles(self) -> int:
        return getattr(self.accelerator.device, "cycles", 0)

    def generate(self, prompt: list[int], max_tokens: int) -> Iterator[int]:
        """Feed ``prompt``, then yield tokens until a stop token (not yielded), ``max_tokens``, or a full context.

        Raises :class:`HostError` before anything runs when the prompt is empty, longer than the context left, or not of
        this model's tokens; the session then goes on as if it had not been asked.
        """
        if max_tokens < 0:
            raise HostError(f"max-tokens is {max_tokens}; it must be 0 or more")
        if self._pending in self.stop_tokens and prompt[:1] == [self._pending]:
            prompt = prompt[1:]  # a chat template writes the end of the answer, too
        tokens = ([] if self._pending is None else [self._pending]) + prompt
        if not tokens:
            raise HostError("the prompt is empty; give at least one token of text")
        left = self.accelerator.max_context - self.sequence.length
        if len(tokens) > left:
            raise HostError(f"the prompt has {len(tokens)} tokens, the context of {self.accelerator.max_context} has "
                            f"room for {left}; shorten it, or start a new conversation")
        self.pool.check(self.sequence, tokens, self.accelerator.max_rows)
        self.pool.reserve(self.sequence, len(tokens))
        return self._generate(tokens, len(prompt), max_tokens)

    def _generate(self, tokens: list[int], prompt_tokens: int, max_tokens: int) -> Iterator[int]:
        begin, cycles = time.monotonic(), self._cycles()
        row = self._feed(tokens)
        self.speed.add(Speed(prompt_tokens, self._cycles() - cycles, 0, 0, time.monotonic() - begin))
        for count in range(max_tokens):
            token = self.sampler.pick(row)
            self._pending = token
            if token in self.stop_tokens:
                return
            yield token
            if count + 1 == max_tokens or self.sequence.length >= self.accelerator.max_context:
                return
            begin, cycles = time.monotonic(), self._cycles()
            row = self._feed([token])
            self.speed.add(Speed(0, 0, 1, self._cycles() - cycles, time.monotonic() - begin))

    def _feed(self, tokens: list[int]) -> RowResult:
        row = self.pool.feed(self.sequence, tokens, last=self.sampler.flags)[-1]
        self._pending = None
        return row

    def restart(self) -> None:
        """Forget everything said."""
        self.pool.close(self.sequence)
        self.sequence, self._pending = self.pool.open(), None

    def close(self) -> None:
        self.pool.close(self.sequence)
