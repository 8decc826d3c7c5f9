"""What a traced pass spent its cycles on, by unit, by port and by cause."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from host.devices.verilator import PortBit
from rtl.contract.activity import Activity
from rtl.contract.command_words import Unit
from rtl.contract.register_map import Counter

ENGINE_EVENTS_LATE = 1
"""The engine says a cycle later what it did."""


SEMAPHORE = "waits for a semaphore"
UNWANTED = "the next record isn't wanted yet"
TILE = "waits for the engine's tile"
HEADS = "waits for the pass's heads"
NOT_ITS_TURN = (SEMAPHORE, UNWANTED, TILE, HEADS)


@dataclass(frozen=True)
class State:
    """A unit's cycles of one kind."""

    name: str
    cycles: np.ndarray
    """bool [cycles]"""
    works: bool = False
    stalls: bool = True
    """Not works: the unit has something to do and can't; otherwise it isn't its turn."""

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.cycles))


@dataclass(frozen=True)
class UnitAccount:
    """States that exclude each other; idle in all others."""

    name: str
    states: tuple[State, ...]


class CycleAccount:
    """Of one pass: ``activity`` and ``ports`` as ``VerilatorDevice.end_trace`` returns them."""

    def __init__(self, activity: np.ndarray, ports: np.ndarray):
        running = np.flatnonzero(activity >> np.uint64(Counter.BUSY_CYCLES) & np.uint64(1))
        if not len(running):
            raise ValueError("no pass runs in this trace")
        first, end = int(running[0]), int(running[-1]) + 1
        self.activity, self.port_bytes = activity[first:end], ports[first:end]
        self.late = np.append(activity[first + ENGINE_EVENTS_LATE:end + ENGINE_EVENTS_LATE], np.uint64(0))[:end - first]

    @property
    def cycles(self) -> int:
        return len(self.activity)

    def bit(self, number: int) -> np.ndarray:
        return (self.activity >> np.uint64(number) & np.uint64(1)).astype(bool)

    def engine_bit(self, number: int) -> np.ndarray:
        return (self.late >> np.uint64(number) & np.uint64(1)).astype(bool)

    def port_bit(self, port: int, number: int) -> np.ndarray:
        return (self.port_bytes[:, port] >> number & 1).astype(bool)

    # ---- units ----------------------------------------------------------------------------------------------------

    def _waits(self, unit: Unit) -> np.ndarray:
        return self.bit(Activity.UNIT_WAITS + unit)

    def _unit(self, name: str, states: list[tuple[str, np.ndarray, bool]]) -> UnitAccount:
        """Each cycle counts for the first of the states that it is in."""
        taken = np.zeros(self.cycles, bool)
        found = []
        for state, cycles, works in states:
            found.append(State(state, cycles & ~taken, works, not works and state not in NOT_ITS_TURN))
            taken |= cycles
        return UnitAccount(name, tuple(found))

    @cached_property
    def units(self) -> list[UnitAccount]:
        b, e = self.bit, self.engine_bit
        attends = b(Counter.ATTENTION_BUSY)
        return [
            self._unit("weight stream", [
                ("a beat", b(Counter.STREAM_BEATS), True),
                ("a ring is empty", b(Activity.RINGS_EMPTY), False),
                (UNWANTED, np.ones(self.cycles, bool), False)]),
            self._unit("engine", [
                ("a step", e(Counter.ENGINE_STEPS), True),
                ("waits for the weight stream", e(Counter.ENGINE_WAIT_STREAM), False),
                ("waits for activations", e(Counter.ENGINE_WAIT_ACTIVATION), False),
                ("waits for tables", e(Counter.ENGINE_WAIT_TABLE), False),
                ("waits for room in the drain ring", e(Counter.ENGINE_WAIT_DRAIN), False)]),
            self._unit("gather", [("works", b(Counter.GATHER_BUSY), True)]),
            self._unit("drain", [
                (TILE, b(Activity.DRAIN_WAIT_TILE), False),
                ("works", b(Counter.DRAIN_BUSY), True),
                (SEMAPHORE, self._waits(Unit.DRAIN), False)]),
            self._unit("quantise", [
                ("waits for statistics, folds", b(Activity.QUANTISE_FOLD), True),
                ("waits for gains or a free buffer", b(Activity.QUANTISE_WAIT_ROOM), False),
                ("slices", b(Counter.QUANTISE_BUSY), True),
                (SEMAPHORE, self._waits(Unit.QUANTISE), False)]),
            self._unit("attention", [
                ("a beat to the array", b(Activity.ATTENTION_BEAT), True),
                ("the array's further turns", b(Activity.ATTENTION_WAIT_ARRAY), True),
                (HEADS, self._before_first_beat, False),
                ("waits for memory", b(Counter.ATTENTION_WAIT_MEMORY), False),
                ("waits for queries", b(Activity.ATTENTION_WAIT_QUERIES), False),
                ("waits for a tile's softmax", b(Activity.ATTENTION_WAIT_WEIGHTS), False),
                ("waits for room in the softmax path", b(Activity.ATTENTION_WAIT_PATH), False),
                ("last words", attends & b(Activity.ATTENTION_WORD), True),
                ("latency", attends, False),
                (SEMAPHORE, self._waits(Unit.ATTENTION), False)]),
            self._unit("KV writer", [
                ("a beat", b(Activity.KV_WRITE_BEAT), True), ("between beats", b(Counter.KV_WRITER_BUSY), True),
                (SEMAPHORE, self._waits(Unit.KV_WRITER), False)]),
            self._unit("head", [
                ("a beat", b(Activity.HEAD_BEAT), True),
                ("waits for the weight stream", b(Activity.HEAD_WAIT_STREAM), False),
                ("logits, results", b(Counter.HEAD_BUSY), True)]),
            self._unit("sequencer", [("waits for a queue", b(Counter.SEQUENCER_WAIT), False)]),
        ]

    @cached_property
    def _before_first_beat(self) -> np.ndarray:
        """An ATTEND is under way whose first beat hasn't come to the array."""
        attends = self.bit(Counter.ATTENTION_BUSY)
        command = np.cumsum(attends & ~np.concatenate([[False], attends[:-1]]))
        beats = np.flatnonzero(self.bit(Activity.ATTENTION_BEAT) & attends)
        first = np.full(command[-1] + 1, self.cycles)
        np.minimum.at(first, command[beats], beats)
        return attends & (np.arange(self.cycles) < first[command])

    @cached_property
    def ports(self) -> list[UnitAccount]:
        def port(p: int) -> UnitAccount:
            b = self.port_bit
            wants = self.bit(Activity.RING_FULL_OF_PORT + p)
            return self._unit(f"port {p}", [
                ("a read beat", b(p, PortBit.READ_BEAT), True), ("a write beat", b(p, PortBit.WRITE_BEAT), True),
                ("refresh", b(p, PortBit.REFRESH) & (b(p, PortBit.READ_PACED) | b(p, PortBit.WRITE_PACED)), False),
                ("memory's rate", b(p, PortBit.READ_PACED) | b(p, PortBit.WRITE_PACED), False),
                ("latency", b(p, PortBit.READ_LATENCY), False),
                ("design doesn't take the beat", b(p, PortBit.READ_HELD), False),
                ("nothing asked for: ring full", wants, False),
                ("nothing asked for", np.ones(self.cycles, bool), False)])
        return [port(p) for p in range(self.port_bytes.shape[1])]

    # ---- the pass -------------------------------------------------------------------------------------------------

    @cached_property
    def causes(self) -> UnitAccount:
        """What each cycle of the pass went to, seen from the engine: a step, or why there was none."""
        b, e = self.bit, self.engine_bit
        steps = np.flatnonzero(e(Counter.ENGINE_STEPS))
        number = np.arange(self.cycles)
        before = number < (steps[0] if len(steps) else self.cycles)
        after = number > (steps[-1] if len(steps) else -1)
        # In the gap between two matrices, the unit that the chain hangs on.
        drains = b(Counter.DRAIN_BUSY) & ~b(Activity.DRAIN_WAIT_TILE)
        attention_is_next = b(Counter.ATTENTION_BUSY) & ~drains & self._waits(Unit.QUANTISE)
        return self._unit("pass", [
            ("before the first step: loading, embedding, first norm", before, False),
            ("head, results", after & b(Counter.HEAD_BUSY), False),
            ("behind the last step: last drain, final norm, writes", after, False),
            ("engine steps", e(Counter.ENGINE_STEPS), True),
            ("weight stream: KV beats had the ports", e(Counter.ENGINE_WAIT_STREAM) & b(Counter.KV_READ_BEATS), False),
            ("weight stream: memory's rate, refresh, latency", e(Counter.ENGINE_WAIT_STREAM), False),
            ("drain ring full", e(Counter.ENGINE_WAIT_DRAIN), False),
            ("quantise: statistics and fold", b(Activity.QUANTISE_FOLD), False),
            ("quantise: slices not there yet, or their tables", b(Counter.QUANTISE_BUSY), False),
            ("tables", e(Counter.ENGINE_WAIT_TABLE), False),
            ("drain of the last tiles", drains, False),
            ("attention: beats on the array", attention_is_next
             & (b(Activity.ATTENTION_BEAT) | b(Activity.ATTENTION_WAIT_ARRAY)), False),
            ("attention: from the heads to its first beat", attention_is_next & self._before_first_beat, False),
            ("attention: waits for memory", attention_is_next & b(Counter.ATTENTION_WAIT_MEMORY), False),
            ("attention: waits for queries", attention_is_next & b(Activity.ATTENTION_WAIT_QUERIES), False),
            ("attention: waits for a softmax", attention_is_next & b(Activity.ATTENTION_WAIT_WEIGHTS), False),
            ("attention: softmax path is full", attention_is_next & b(Activity.ATTENTION_WAIT_PATH), False),
            ("attention: last softmax, merge, words", attention_is_next, False),
            ("latencies between units", np.ones(self.cycles, bool), False),
        ])

    def counters(self) -> dict[str, int]:
        """What the hardware's counters count, from the trace."""
        return {counter.name: int(np.count_nonzero(self.bit(counter))) for counter in Counter}

    def busiest_port_cycles(self, rates: list[float]) -> float:
        """Cycles that the memory needs at least for the beats of this pass, at these beats a cycle of each port."""
        moved = [sum(np.count_nonzero(self.port_bit(p, bit)) for bit in (PortBit.READ_BEAT, PortBit.WRITE_BEAT))
                 for p in range(len(rates))]
        return max(beats / rate for beats, rate in zip(moved, rates))
