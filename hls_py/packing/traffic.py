"""What a model on a design takes: bytes of its stream, tables and KV cache, and the rate that a board's bus allows.

Beats are worked out from shapes alone; a test holds them against what packing writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from hls_py.boards import RATE_UNIT, Board, MemoryModel
from hls_py.schedule.program import TableLayout, block_beats
from hls_py.schedule.shape import ModelShape
from hls_py.schedule.stream_order import Codes, Gains, Matrix, Norm, head_records, layer_records
from rtl.contract.number_formats import TILE_POSITIONS, round_up


def layers_beats(shape: ModelShape) -> int:
    """Beats of the stream that every pass consumes."""
    # Layers differ only in the first one's gains of its own input norm.
    first = sum(_beats(shape, item) for item in layer_records(shape, 0))
    own = _gain_beats(shape, shape.hidden)
    return shape.config.layers * (first - own) + own


def head_beats(shape: ModelShape) -> int:
    """Beats that a pass with logits consumes after the layers'."""
    beats, segments = 0, shape.params.segments
    for item in head_records(shape):
        padded = round_up(item.rows, segments)
        beats += 2 + -(-4 * padded // shape.params.beat_bytes) + padded // segments * shape.segments
    return beats


def _beats(shape: ModelShape, item: Gains | Codes) -> int:
    if isinstance(item, Gains):
        width = {Norm.ATTENTION: shape.attention_width, Norm.FFN: shape.ffn}.get(item.norm, shape.hidden)
        return _gain_beats(shape, width)
    inputs = {Matrix.OUTPUT: shape.attention_width, Matrix.DOWN: shape.ffn}.get(item.matrix, shape.hidden)
    return 1 + shape.slices(inputs) * item.tile.steps


def _gain_beats(shape: ModelShape, width: int) -> int:
    return 1 + -(-4 * width // shape.params.beat_bytes)


@dataclass(frozen=True)
class Traffic:
    """Bytes of one model on one design."""

    layers_bytes: int
    """Of every token's (or pass's) weights."""
    head_bytes: int
    tables_bytes: int
    kv_bytes_per_token: int
    """That a position adds to the cache, its share of padding included."""

    @property
    def image_bytes(self) -> int:
        return self.layers_bytes + self.head_bytes + self.tables_bytes

    def decode_bytes(self, context: int) -> int:
        """What one token of one sequence moves over the bus behind ``context`` positions."""
        return self.layers_bytes + self.head_bytes + self.kv_bytes_per_token * context


def traffic(shape: ModelShape) -> Traffic:
    beat = shape.params.beat_bytes
    return Traffic(layers_beats(shape) * beat, head_beats(shape) * beat, TableLayout(shape).beats * beat,
                   block_beats(shape) * beat // TILE_POSITIONS)


def positions_that_fit(shape: ModelShape, board: Board) -> int:
    """Positions of one sequence's KV cache beside the image, 0 if not even a block fits. Small buffers don't count."""
    left = board.memory_bytes - traffic(shape).image_bytes
    block = block_beats(shape) * shape.params.beat_bytes
    return max(0, min(left // block * TILE_POSITIONS, shape.config.max_positions))


def bus_bytes_per_second(board: Board, memory: MemoryModel) -> float:
    """What the ports deliver together when all keep the slowest one's pace, as a striped stream makes them."""
    def rate(port: int) -> float:
        timing = memory.ports[port]
        moving = 1 - timing.refresh_cycles / timing.refresh_interval_cycles if timing.refresh_interval_cycles else 1.0
        return timing.rate_beats_per_million_cycles / RATE_UNIT * moving

    return min(map(rate, range(len(memory.ports)))) * board.clock_hz * board.params.beat_bytes


