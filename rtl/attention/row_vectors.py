"""Counters that walk the row-vectors of a tile without dividing."""

from amaranth.hdl import Signal

from rtl.attention.tile_shapes import HEAD_BITS, TURN_BITS
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams.shapes import row_bits


class RowVectorCounter:
    """Where row-vector i is: its array place (``turn``, ``lane`` of ``lanes``), its row and head within the tile.

    Starts at zero; ``step`` goes to the next row-vector, and back to the first behind the last of ``row_vectors``.
    """

    def __init__(self, name: str, params: DesignParams, lanes: int):
        self.lanes = lanes
        self.index = Signal(range(params.max_row_vectors), name=f"{name}_index")
        self.turn = Signal(TURN_BITS, name=f"{name}_turn")
        self.lane = Signal(bits_for(lanes - 1), name=f"{name}_lane")
        self.row = Signal(row_bits(params), name=f"{name}_row")
        self.head = Signal(HEAD_BITS, name=f"{name}_head")

    def is_last(self, row_vectors):
        return self.index == row_vectors - 1

    def step(self, m, row_vectors, queries_per_kv) -> None:
        """Statements that go on by one; to be called inside the condition under which they hold."""
        with m.If(self.is_last(row_vectors)):
            m.d.sync += [self.index.eq(0), self.turn.eq(0), self.lane.eq(0), self.row.eq(0), self.head.eq(0)]
        with m.Else():
            m.d.sync += self.index.eq(self.index + 1)
            with m.If(self.lane == self.lanes - 1):
                m.d.sync += [self.lane.eq(0), self.turn.eq(self.turn + 1)]
            with m.Else():
                m.d.sync += self.lane.eq(self.lane + 1)
            with m.If(self.head == queries_per_kv - 1):
                m.d.sync += [self.head.eq(0), self.row.eq(self.row + 1)]
            with m.Else():
                m.d.sync += self.head.eq(self.head + 1)
