"""Payloads of the streams between the parts of the attention unit; see docs/attention.md for order and framing."""

from amaranth.hdl import signed
from amaranth.lib import data

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS, bits_for
from rtl.streams import shapes

BLOCKS_PER_TILE = TILE_POSITIONS // SEGMENT_BYTES
"""16-position blocks of a tile: V beats contract over one of them."""

POSITION_BITS = bits_for(TILE_POSITIONS)
"""Holds a number of positions of a tile, 0 … 128."""

DIFFERENCE_BITS = 9
ROW_VECTOR_BITS = 12
"""Holds a number of row-vectors of a group: at most half of 64 turns of 64 lanes."""
TURN_BITS = 6
DIM_GROUP_BITS = 9


def row_count_bits(params: DesignParams) -> int:
    """Holds a number of rows, 0 … P."""
    return bits_for(params.rows)


def position_groups(params: DesignParams) -> int:
    """Groups of S positions of a tile."""
    return TILE_POSITIONS // params.segments


def tile(params: DesignParams) -> data.StructLayout:
    """A tile of a (group, KV head), as the softmax path needs to know it."""
    return data.StructLayout({
        "row_vectors": ROW_VECTOR_BITS, "first_row": shapes.row_bits(params), "rows": row_count_bits(params),
        "queries_per_kv": 8, "kv_head": 8, "head_dim": 16, "difference": signed(DIFFERENCE_BITS),
        "groups_of_positions": bits_for(position_groups(params)), "first_tile": 1, "last_tile": 1,
        "factor": 32, "row_words": 16, "statistics": 1, "has_norm": 1, "gain_bank": 1, "last_of_command": 1,
    })


def scales(params: DesignParams) -> data.StructLayout:
    """bfloat16 scales of the keys and values of S consecutive positions."""
    each = data.ArrayLayout(16, params.segments)
    return data.StructLayout({"key": each, "value": each})


def dots(params: DesignParams) -> data.ArrayLayout:
    """[A][S] signed sums of the array."""
    return data.ArrayLayout(data.ArrayLayout(signed(32), params.segments), params.row_vectors)


def scores(params: DesignParams) -> data.StructLayout:
    """Sums of one turn of a K phase: row-vectors turn·A … against position group ``group``."""
    return data.StructLayout({"turn": TURN_BITS, "group": bits_for(position_groups(params) - 1), "dots": dots(params)})


def query_address(params: DesignParams) -> data.StructLayout:
    return data.StructLayout({"row": shapes.row_bits(params), "head": 8})


def weights(params: DesignParams) -> data.StructLayout:
    """Bytes of a 7-bit half of a row-vector's weights for the 16 positions of a block."""
    return data.StructLayout({
        "turn": TURN_BITS, "block": bits_for(BLOCKS_PER_TILE - 1), "lane": bits_for(params.row_vectors - 1),
        "mask": SEGMENT_BYTES, "data": 8 * SEGMENT_BYTES,
    })


def value_sums(params: DesignParams) -> data.StructLayout:
    """Sums of one turn of a V phase: dims dim_group·S … over the 16 positions of ``block``."""
    return data.StructLayout({
        "turn": TURN_BITS, "block": bits_for(BLOCKS_PER_TILE - 1), "dim_group": DIM_GROUP_BITS, "last": 1,
        "dots": dots(params),
    })
