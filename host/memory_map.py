"""Where things lie in a device's memory."""

from __future__ import annotations

from dataclasses import dataclass

from host.errors import HostError
from rtl.contract import pass_descriptor as descriptor
from rtl.contract.design_params import DesignParams
from rtl.contract.image_manifest import ImageManifest
from rtl.contract.number_formats import TILE_POSITIONS, round_up

ALIGNMENT = 1 << 16
"""Port regions start at multiples of it, plus the board's offset of the port."""
SCRATCH_SETS = 2
"""Descriptor areas: while one pass runs, the next one's is written."""


@dataclass(frozen=True)
class StripedRegion:
    """Beats spread over the ports: port p's words from byte address ``bases[p]``."""

    bases: tuple[int, ...]
    beats: int


@dataclass(frozen=True)
class Scratch:
    """Where one pass's descriptor, extents, block lists and outputs lie."""

    descriptor: int
    extents: int
    lists: int
    list_bytes: int
    logits: int
    logits_row_bytes: int
    results: int


class MemoryMap:
    """Regions of one image in ``size`` bytes from ``base``; the KV cache takes what is left.

    ``context``: positions that a sequence may have. Raises :class:`HostError` when not even one KV block fits.
    """

    def __init__(self, params: DesignParams, manifest: ImageManifest, base: int, size: int,
                 port_offsets: tuple[int, ...], stream_beats: int, table_beats: int, program_bytes: int,
                 max_context: int | None = None):
        self.params, self.manifest = params, manifest
        self._next, self._end = round_up(base, ALIGNMENT), base + size
        self._offsets = port_offsets
        self._size = size
        self.context = manifest.max_positions if max_context is None else max_context
        self.blocks_per_sequence = -(-self.context // TILE_POSITIONS)
        self.stream = self._striped(stream_beats)
        self.tables = self._striped(table_beats)
        self.program = self._linear(program_bytes)
        self.scratch = [self._scratch() for _ in range(SCRATCH_SETS)]
        self.kv, self.blocks = self._kv()

    def _linear(self, size: int) -> int:
        address = self._next
        self._next = round_up(address + size, 4096)
        if self._next > self._end:
            raise HostError(f"the model needs more than the device's memory ({self._size:,} bytes); "
                            "use a board with more")
        return address

    def _striped(self, beats: int) -> StripedRegion:
        size = round_up(beats * self.params.port_bytes, ALIGNMENT) + ALIGNMENT
        first = round_up(self._next, ALIGNMENT)
        self._next = first
        starts = [self._linear(size) for _ in range(self.params.ports)]
        bases = tuple(start + self._offsets[port] % ALIGNMENT for port, start in enumerate(starts))
        return StripedRegion(bases, beats)

    def _scratch(self) -> Scratch:
        p = self.params
        list_bytes = round_up(4 * self.blocks_per_sequence, 64)
        logits_row_bytes = round_up(4 * self.manifest.vocabulary, 64)
        header = (descriptor.PASS_HEADER.size_bytes + p.rows * (descriptor.ROW_ENTRY.size_bytes
                                                               + descriptor.GROUP_ENTRY.size_bytes))
        return Scratch(
            descriptor=self._linear(header), extents=self._linear(2 * descriptor.extent_bytes(p.ports)),
            lists=self._linear(p.rows * list_bytes), list_bytes=list_bytes,
            logits=self._linear(p.rows * logits_row_bytes), logits_row_bytes=logits_row_bytes,
            results=self._linear(p.rows * descriptor.result_bytes(p.top_k)))

    def _kv(self) -> tuple[StripedRegion, int]:
        p, block_beats = self.params, self.manifest.block_beats
        first = round_up(self._next, ALIGNMENT)
        per_port = (self._end - first) // p.ports // ALIGNMENT * ALIGNMENT - 2 * ALIGNMENT
        blocks = max(0, per_port // (block_beats * p.port_bytes))
        if blocks < 1:
            raise HostError(f"after the weights no room is left for a block of the KV cache "
                            f"({block_beats * p.beat_bytes:,} bytes); use a board with more memory")
        blocks = min(blocks, p.max_slots * self.blocks_per_sequence)
        return self._striped(blocks * block_beats), blocks
