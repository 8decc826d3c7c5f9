"""The KV cache in memory: blocks of 128 positions, one tile a (block, layer, KV head).

Addresses are in beats relative to the KV base of each port; byte b of a beat lies on port b div port_bytes.
A tile is a header (scales), K, then V; S = segments a beat = beat_bytes/16; D = head_dim rounded up to 16:

header: σK of the 128 positions (bfloat16), then σV: 512 bytes, padded to whole beats
K     : beat tg·(D/16) + db, segment s = dims db·16 … +15 of position tg·S + s
V     : beat tb·(D/S) + dg,  segment s = dim dg·S + s of positions tb·16 … +15

Query and key dims are stored in rotary-pair order (0, d/2, 1, d/2+1, …), value dims in natural order.
"""

from dataclasses import dataclass

from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS, round_up

SCALE_BYTES = 2
KEY_SCALES_OFFSET_BYTES = 0
VALUE_SCALES_OFFSET_BYTES = SCALE_BYTES * TILE_POSITIONS
HEADER_BYTES = 2 * SCALE_BYTES * TILE_POSITIONS


@dataclass(frozen=True)
class TileLayout:
    """Sizes of one KV tile, in beats of ``beat_bytes``."""

    head_dim: int
    beat_bytes: int

    @property
    def padded_dim(self) -> int:
        return round_up(self.head_dim, SEGMENT_BYTES)

    @property
    def segments(self) -> int:
        return self.beat_bytes // SEGMENT_BYTES

    @property
    def header_beats(self) -> int:
        return -(-HEADER_BYTES // self.beat_bytes)

    @property
    def key_beats_per_group(self) -> int:
        """Beats of one group of S positions: D/16."""
        return self.padded_dim // SEGMENT_BYTES

    @property
    def value_beats_per_block(self) -> int:
        """Beats of one block of 16 positions: D/S."""
        return self.padded_dim // self.segments

    @property
    def key_offset(self) -> int:
        return self.header_beats

    @property
    def value_offset(self) -> int:
        return self.key_offset + TILE_POSITIONS // self.segments * self.key_beats_per_group

    @property
    def tile_beats(self) -> int:
        return self.value_offset + TILE_POSITIONS // SEGMENT_BYTES * self.value_beats_per_block
