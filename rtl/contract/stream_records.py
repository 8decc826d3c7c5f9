"""Records of the weight stream: a header beat, then payload beats.

The header's first 16 bytes carry the fields below; the rest of the header beat is zero. The CRC is CRC-32 (IEEE
802.3, as zlib's) over the header beat with the crc field zero, followed by every payload beat, whole beats as they lie
in memory.
"""

import zlib
from enum import IntEnum

from rtl.contract.bitfields import Field, WordLayout

MAGIC = 0x7E11


class Destination(IntEnum):
    """Who takes the payload."""

    CODES = 0
    """Ternary codes of one tile: K slices outer, steps inner; one record a tile."""
    GAINS = 1
    """float32 gains of one norm, padded with zeros to whole beats."""
    HEAD_SCALES = 2
    """float32 scale a vocabulary row, for the HEAD_ROWS record that follows."""
    HEAD_ROWS = 3
    """int8 vocabulary rows: S rows a group, 16 dims a beat (segment s is row s of the group)."""


RECORD_HEADER = WordLayout("record_header", 4, [
    Field("magic", 0, 0, 16, "MAGIC"),
    Field("destination", 0, 16, 8, "a Destination"),
    Field("flags", 0, 24, 8, "GAINS: bit 0 is the bank to fill; else zero"),
    Field("beats", 1, 0, 32, "payload beats, ≥ 1"),
    Field("sequence", 2, 0, 32, "number of the record in its image, for messages"),
    Field("crc", 3, 0, 32, "CRC-32 of header (crc = 0) and payload"),
], "First 16 bytes of a record's header beat.")

HEAD_CHUNK_ROWS = 256
"""Vocabulary rows a HEAD_SCALES/HEAD_ROWS pair covers at most (rounded up to whole groups of S)."""


def record(destination: Destination, payload: bytes, sequence: int, beat_bytes: int, flags: int = 0) -> bytes:
    """Header beat and payload (padded with zeros to whole beats) as they lie in the stream."""
    payload += bytes(-len(payload) % beat_bytes)
    fields = dict(magic=MAGIC, destination=destination, flags=flags, beats=len(payload) // beat_bytes,
                  sequence=sequence)
    blank = RECORD_HEADER.pack(**fields).ljust(beat_bytes, b"\0")
    crc = zlib.crc32(payload, zlib.crc32(blank))
    return RECORD_HEADER.pack(**fields, crc=crc).ljust(beat_bytes, b"\0") + payload


def record_crc(header_beat: bytes, payload: bytes) -> int:
    """The CRC that ``header_beat`` should carry."""
    return zlib.crc32(payload, zlib.crc32(header_beat[:12] + bytes(4) + header_beat[16:]))
