"""Where a block's tile lies in memory, and which of its positions are whose."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes
from rtl.contract.number_formats import TILE_POSITIONS
from rtl.streams.shapes import BEAT_ADDRESS_BITS


class TileAddress(wiring.Component):
    """``beat = block·block_beats + head_beat`` modulo 2³², from three multipliers of 16 × 16 bits.

    Timing: the operands stay put for ``latency_cycles``; then ``beat`` is theirs.
    """

    latency_cycles = 3

    def __init__(self):
        super().__init__({
            "block": In(BEAT_ADDRESS_BITS), "block_beats": In(BEAT_ADDRESS_BITS), "head_beat": In(BEAT_ADDRESS_BITS),
            "beat": Out(BEAT_ADDRESS_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        low, high_0, high_1, high = Signal(32), Signal(16), Signal(16), Signal(32)
        m.d.sync += [
            low.eq(self.block[:16] * self.block_beats[:16]),
            high_0.eq(self.block[:16] * self.block_beats[16:]), high_1.eq(self.block[16:] * self.block_beats[:16]),
            high.eq(low + ((high_0 + high_1) << 16)),
            self.beat.eq(high + self.head_beat),
        ]
        return m


def tile_positions(past: Value, rows: Value, tile: Value) -> dict[str, Value]:
    """Of tile number ``tile`` of a group with ``past`` positions before the pass and ``rows`` new ones.

    difference: the tile's start less ``past``, not below −128; positions: how many exist, 1 … 128 (if any does);
    past_positions: those of them that lie in memory.
    """
    distance = ((tile << kv_shapes.TILE_LOG2) - past)[:33].as_signed()
    clamped = Mux(distance < -TILE_POSITIONS, -TILE_POSITIONS, distance)
    ahead = rows - distance
    return {
        "difference": clamped,
        "positions": Mux(ahead > TILE_POSITIONS, TILE_POSITIONS, ahead),
        "past_positions": Mux(distance < 0, -clamped, 0),
    }
