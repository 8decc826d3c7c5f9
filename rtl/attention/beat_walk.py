"""Counters that walk the beats of a tile's K or V part, with their place in the newest K and V."""

from amaranth.hdl import Module, Mux, Signal, Value, signed

from rtl.attention import kv_shapes
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES

OUTER_BITS = 8
INNER_BITS = 10


class BeatWalk:
    """``outer``: group of S positions (K) or block of 16 (V); ``inner``: segment of 16 dims (K) or group of S dims (V).

    ``row``, ``word``, ``part`` are those of kv_shapes.newest_read for this beat.
    """

    def __init__(self, name: str, params: DesignParams):
        self.params = params
        self.is_value = Signal(name=f"{name}_is_value")
        self.outer = Signal(OUTER_BITS, name=f"{name}_outer")
        self.inner = Signal(INNER_BITS, name=f"{name}_inner")
        self.row = Signal(signed(kv_shapes.ROW_INDEX_BITS), name=f"{name}_row")
        self.word = Signal(kv_shapes.WORD_BITS, name=f"{name}_word")
        self.head_word = Signal(kv_shapes.WORD_BITS, name=f"{name}_head_word")
        self.part = Signal(4, name=f"{name}_part")
        self.ends_inner = Signal(name=f"{name}_ends_inner")

    @property
    def positions(self) -> Value:
        """Positions that one step of ``outer`` covers."""
        return Mux(self.is_value, SEGMENT_BYTES, self.params.segments)

    def wire(self, m: Module, geometry: Value) -> None:
        """Combinational part; once."""
        self.geometry = geometry
        m.d.comb += self.ends_inner.eq(self.inner == Mux(self.is_value, geometry.dim_groups, geometry.segments) - 1)

    def start(self, m: Module, is_value: Value, outer: Value, row: Value, head_word: Value) -> None:
        """Statements that begin at group or block ``outer``, whose first position is of row ``row``."""
        m.d.sync += [
            self.is_value.eq(is_value), self.outer.eq(outer), self.inner.eq(0), self.row.eq(row),
            self.word.eq(head_word), self.head_word.eq(head_word), self.part.eq(0),
        ]

    def step(self, m: Module) -> None:
        """Statements that go on by one beat."""
        with m.If(self.ends_inner):
            m.d.sync += [self.inner.eq(0), self.outer.eq(self.outer + 1), self.row.eq(self.row + self.positions),
                         self.word.eq(self.head_word), self.part.eq(0)]
        with m.Else():
            parts, groups = kv_shapes.value_parts(self.params), SEGMENT_BYTES // self.params.segments
            m.d.sync += [self.inner.eq(self.inner + 1), self.part.eq((self.part + self.is_value) & (groups - 1))]
            with m.If(~self.is_value | ((self.part & (parts - 1)) == parts - 1)):
                stride = Mux(self.is_value, self.geometry.value_stride, self.geometry.key_stride)
                m.d.sync += self.word.eq(self.word + stride)
