"""The queue that memory ports use: LUTRAM when shallow, block RAM when deep."""

from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered

LUTRAM_DEPTH = 64


def word_fifo(width: int, depth: int) -> SyncFIFO | SyncFIFOBuffered:
    """First-word-fall-through queue of ``depth`` words of ``width`` bits; one word in and one out each cycle."""
    return SyncFIFO(width=width, depth=depth) if depth <= LUTRAM_DEPTH else SyncFIFOBuffered(width=width, depth=depth)
