"""What the units do in each cycle, as bits of the accelerator's signal ``activity``, which only simulators look at.

Nothing in the hardware reads it, so synthesis removes it. The first bits are the events that the counters count.
"""

from enum import IntEnum

from rtl.contract.command_words import Unit
from rtl.contract.register_map import MAX_PORTS, Counter

_EXTRA = len(Counter)
_RINGS = 48
SIGNAL = "activity"
ACTIVITY_BITS = _RINGS + MAX_PORTS


class Activity(IntEnum):
    """Bits above the counters' (bit ``Counter.X`` is the event X; BUSY_CYCLES: a pass runs)."""

    UNIT_WAITS = _EXTRA
    """And the following, a bit a Unit: its next command waits for a semaphore."""
    ATTENTION_BEAT = _EXTRA + len(Unit)
    """The array takes a beat."""
    ATTENTION_WAIT_ARRAY = ATTENTION_BEAT + 1
    """The array still works on the beat before (several turns)."""
    ATTENTION_WAIT_QUERIES = ATTENTION_BEAT + 2
    """A head's first K phase waits for the pass's new heads, or for their queries to be loaded."""
    ATTENTION_WAIT_WEIGHTS = ATTENTION_BEAT + 3
    """A V phase waits for the softmax of its tile."""
    ATTENTION_WAIT_PATH = ATTENTION_BEAT + 4
    """A phase waits for room in the softmax path."""
    ATTENTION_WORD = ATTENTION_BEAT + 5
    """A word of the output is written."""
    DRAIN_WAIT_TILE = ATTENTION_BEAT + 6
    """DRAIN has its command and waits for the engine to finish the tile."""
    QUANTISE_FOLD = ATTENTION_BEAT + 7
    """QUANTISE waits until its statistics are in, and folds them."""
    QUANTISE_WAIT_ROOM = ATTENTION_BEAT + 8
    """QUANTISE waits for gains, or for the engine to free an activation buffer."""
    HEAD_BEAT = ATTENTION_BEAT + 9
    HEAD_WAIT_STREAM = ATTENTION_BEAT + 10
    KV_WRITE_BEAT = ATTENTION_BEAT + 11
    RINGS_EMPTY = ATTENTION_BEAT + 12
    """No beat of the weight stream can be formed: a port's ring is empty."""
    RING_FULL_OF_PORT = _RINGS
    """And the following, a bit a port: weights are wanted, and the ring has no room."""


assert Activity.RINGS_EMPTY < _RINGS
