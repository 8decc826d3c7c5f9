"""Payloads between the tile walker, the int8 array and the softmax path.

Row-vector i of a tile is row ``first_row + i div queries_per_kv`` of the pass and query head
``kv_head·queries_per_kv + i mod queries_per_kv``; in scores it sits in lane i mod A of turn i div A. Its quantised
weights take two row-vectors of the array, 2i (high 7 bits) and 2i + 1 (low 7 bits), laid out alike; A is even, so that
both are in one turn.
"""

from amaranth.hdl import signed
from amaranth.lib import data

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS, WEIGHT_MAX, bits_for
from rtl.streams.shapes import row_bits

TILES_AHEAD = 8
"""Tiles that are announced and not yet merged, at most."""
TURN_BITS = 6
HEAD_BITS = 8
BLOCK_BITS = bits_for(TILE_POSITIONS // SEGMENT_BYTES - 1)
GROUP_BITS = 8
DIFFERENCE_BITS = 9
TOTAL_BITS = 28
"""Σ e of a tile: 128 positions of at most 2²⁰."""


def position_groups(params: DesignParams) -> int:
    """Groups of S positions in a tile."""
    return TILE_POSITIONS // params.segments


def dim_groups(params: DesignParams) -> int:
    """Groups of S dims of the widest head, padded to whole segments of 16."""
    return params.padded_head_dim // params.segments


def dim_group_bits(params: DesignParams) -> int:
    return max(8, bits_for(dim_groups(params) - 1))


def value_turns(params: DesignParams) -> int:
    """Turns that a V beat takes at most: two lanes of the array a row-vector."""
    return -(-2 * params.max_row_vectors // params.row_vectors)


def score_bits(params: DesignParams) -> int:
    """Signed width of q·k."""
    return bits_for(127 * 127 * params.padded_head_dim) + 1


def sum_bits(params: DesignParams) -> int:
    """Signed width of Σ wq·v over a tile, both halves of the weights together."""
    return bits_for(127 * WEIGHT_MAX * TILE_POSITIONS) + 1


def tile(params: DesignParams) -> data.StructLayout:
    """One tile of a (group, KV head), as the walker announces it.

    row_vectors         : rows·queries_per_kv, 1 … max_row_vectors.
    difference          : tile's first position − past, not below −128 (then every position is past).
    groups_of_positions : groups of S positions that are scored, from the tile's start, ≥ 1.
    first_tile, last_tile : of this group and KV head.
    factor              : log2(e)/√head_dim, float32.
    row_words           : words from one row to the next of the destination (not needed here).
    """
    return data.StructLayout({
        "row_vectors": bits_for(params.max_row_vectors), "first_row": row_bits(params), "rows": bits_for(params.rows),
        "queries_per_kv": HEAD_BITS, "kv_head": HEAD_BITS, "head_dim": 16, "difference": signed(DIFFERENCE_BITS),
        "groups_of_positions": GROUP_BITS, "first_tile": 1, "last_tile": 1, "factor": 32, "row_words": 16,
        "statistics": 1, "has_norm": 1, "gain_bank": 1, "last_of_command": 1,
    })


def scale_group(params: DesignParams) -> data.StructLayout:
    """bfloat16 scales of a group of S positions."""
    return data.StructLayout({
        "key": data.ArrayLayout(16, params.segments), "value": data.ArrayLayout(16, params.segments),
    })


def score_sums(params: DesignParams) -> data.StructLayout:
    """q·k of A row-vectors and the S positions of a group, signed 32 bits (``dots[a][s]``)."""
    return data.StructLayout({"turn": TURN_BITS, "group": GROUP_BITS, "dots": dots(params)})


def value_sums(params: DesignParams) -> data.StructLayout:
    """Σ w·v of A lanes and S dims over one block of 16 positions; ``last`` on the tile's last transfer."""
    return data.StructLayout({
        "turn": TURN_BITS, "block": BLOCK_BITS, "dim_group": dim_group_bits(params), "last": 1, "dots": dots(params),
    })


def dots(params: DesignParams) -> data.ArrayLayout:
    return data.ArrayLayout(data.ArrayLayout(32, params.segments), params.row_vectors)


def weight_write(params: DesignParams) -> data.StructLayout:
    """7-bit halves of 16 positions' weights as bytes, for one lane of the array's operands."""
    return data.StructLayout({
        "turn": TURN_BITS, "block": BLOCK_BITS, "lane": bits_for(params.row_vectors - 1), "mask": SEGMENT_BYTES,
        "data": 8 * SEGMENT_BYTES,
    })


def query_address(params: DesignParams) -> data.StructLayout:
    return data.StructLayout({"row": row_bits(params), "head": HEAD_BITS})


def score_row(params: DesignParams) -> data.StructLayout:
    """S scores (float32) of one row-vector; ``first`` and ``last`` frame a row-vector, the others the tile's."""
    lanes = params.segments
    return data.StructLayout({
        "first": 1, "last": 1, "first_row_vector": 1, "last_row_vector": 1, "visible": lanes,
        "score": data.ArrayLayout(32, lanes), "value_scale": data.ArrayLayout(16, lanes),
    })


ROW_STATE = data.StructLayout({"maximum": 32, "total": TOTAL_BITS, "scale": 32, "seen": 1})
"""What the softmax of a tile leaves for one row-vector: m, l, c (floats but l), and whether it saw any position."""
