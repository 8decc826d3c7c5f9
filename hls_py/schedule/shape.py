"""The shape of a model as the hardware sees it: padded widths, steps, slices, and how many rows fit a pass."""

from __future__ import annotations

from dataclasses import dataclass

from hls_py.errors import TellmeError
from hls_py.model_import.config import ModelConfig
from rtl.contract.design_params import DesignParams
from rtl.contract.kv_layout import TileLayout
from rtl.contract.number_formats import SEGMENT_BYTES, VECTOR_ALIGN, round_up

MAX_LAYERS = 1 << 12


@dataclass(frozen=True)
class ModelShape:
    """Sizes of one model on one design; every width in elements with padding to VECTOR_ALIGN."""

    config: ModelConfig
    params: DesignParams
    attention_sub_norm: bool
    ffn_sub_norm: bool

    @property
    def hidden(self) -> int:
        return round_up(self.config.hidden_size, VECTOR_ALIGN)

    @property
    def head_width(self) -> int:
        """Outputs a head takes in a vector."""
        return round_up(self.config.head_dim, VECTOR_ALIGN)

    @property
    def attention_width(self) -> int:
        return self.config.heads * self.head_width

    @property
    def ffn(self) -> int:
        return round_up(self.config.intermediate_size, VECTOR_ALIGN)

    @property
    def segments(self) -> int:
        """16-element segments of the final hidden vector."""
        return -(-self.hidden // SEGMENT_BYTES)

    @property
    def tile(self) -> TileLayout:
        return TileLayout(self.config.head_dim, self.params.beat_bytes)

    def words(self, width: int) -> int:
        return width // self.params.vector_lanes

    def slices(self, width: int) -> int:
        return -(-width // self.params.slice_elements)

    @property
    def max_rows(self) -> int:
        """Rows a pass may have: the on-chip memories hold rows × width."""
        p, c = self.params, self.config
        widest = max(self.attention_width, self.ffn, self.hidden)
        kv_segments = c.kv_heads * self.tile.padded_dim // SEGMENT_BYTES
        query_segments = c.heads * self.tile.padded_dim // SEGMENT_BYTES
        most = min(
            p.rows,
            p.residual_words // self.words(self.hidden),
            p.vector_words // self.words(max(self.attention_width, self.ffn)),
            p.activation_words // self.slices(widest),
            p.rows * p.query_segments // query_segments,
            p.max_row_vectors // c.queries_per_kv,
        )
        return next((rows for rows in range(most, 0, -1) if p.holds_newest(rows, kv_segments)), 0)

    def check(self) -> None:
        """Raises :class:`TellmeError` naming the first limit of the design that the model exceeds."""
        p, c = self.params, self.config
        limits = [
            ("head_dim", c.head_dim, p.max_head_dim, "max_head_dim"),
            ("number of heads", c.heads, p.max_heads, "max_heads"),
            ("widest vector", max(self.attention_width, self.ffn, self.hidden), p.max_vector_elements, "max_inner"),
            ("hidden size", self.segments, p.operand_words // -(-p.rows // p.row_vectors), "operand_words"),
            ("layers", c.layers, MAX_LAYERS, "the contract's layer field"),
        ]
        for what, value, limit, name in limits:
            if value > limit:
                raise TellmeError(f"the model's {what} ({value}) exceeds the design's {name} ({limit}); "
                                  f"generate a design with a larger {name}")
        if c.activation not in p.activations:
            raise TellmeError(f"the model needs the activation {c.activation}, "
                              f"the design has {', '.join(p.activations)}")
        if self.max_rows < 1:
            raise TellmeError("the model is too wide for one row on this design; raise max_hidden, max_inner, "
                              "max_kv_width or max_row_vectors")
