"""Sizes of the on-chip K, V and query memories, and payloads between walker, loader, beat source and writer."""

from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import tile_shapes
from rtl.contract.design_params import DesignParams
from rtl.contract.kv_layout import HEADER_BYTES
from rtl.contract.number_formats import SEGMENT_BYTES, TILE_POSITIONS, VECTOR_ALIGN, bits_for
from rtl.streams import shapes

TILE_LOG2 = TILE_POSITIONS.bit_length() - 1
BLOCK_LOG2 = SEGMENT_BYTES.bit_length() - 1
POSITION_BITS = bits_for(TILE_POSITIONS)
"""Holds a number of positions of a tile, 0 … 128."""
ROW_INDEX_BITS = 9
"""Signed row of the pass that a position would have: −128 … 191."""
WORD_BITS = 16
"""Address within a bank of the newest K or V, and within the query memory."""
SEGMENTS_BITS = 6
"""Holds D/16 of a head, 1 … 32."""
TURN_BITS = tile_shapes.TURN_BITS


def segments_log2(params: DesignParams) -> int:
    return params.segments.bit_length() - 1


def header_beats(params: DesignParams) -> int:
    return -(-HEADER_BYTES // params.beat_bytes)


# ---- on-chip memories ------------------------------------------------------------------------------------------------

def query_words(params: DesignParams) -> int:
    """Query segments of 16 dims that fit: P rows of max_inner (heads padded to 16) or of max_heads of max_head_dim."""
    row = min(params.max_inner + (SEGMENT_BYTES - VECTOR_ALIGN) * params.max_heads,
              params.max_heads * params.padded_head_dim)
    return params.rows * -(-row // SEGMENT_BYTES)


def key_rows(params: DesignParams) -> int:
    """Words of a bank for a segment of K of all rows."""
    return -(-params.rows // params.newest_bank_bytes)


def key_bank_words(params: DesignParams) -> int:
    return key_rows(params) * params.newest_words


def value_rows(params: DesignParams) -> int:
    """Words of a bank for a piece of V of all rows."""
    return -(-params.rows // SEGMENT_BYTES)


def value_parts(params: DesignParams) -> int:
    """Reads of S dims that a piece of V serves."""
    return params.newest_bank_bytes // params.segments


def value_bank_words(params: DesignParams) -> int:
    return value_rows(params) * params.newest_words * SEGMENT_BYTES // params.newest_bank_bytes


def scale_rows(params: DesignParams) -> int:
    """Rows of one of the S banks of newest scales."""
    return -(-params.rows // params.segments)


# ---- operand memory of the array -------------------------------------------------------------------------------------

def query_slot_words(params: DesignParams) -> int:
    """Operand words of the queries of one (group, KV head)."""
    return params.max_turns * params.padded_head_dim // SEGMENT_BYTES


WEIGHT_STRIDE = TILE_POSITIONS // SEGMENT_BYTES


def weight_slot_words(params: DesignParams) -> int:
    """Operand words of the weights of one tile."""
    return tile_shapes.value_turns(params) * WEIGHT_STRIDE


def weight_base(params: DesignParams) -> int:
    return 2 * query_slot_words(params)


def operand_words(params: DesignParams) -> int:
    """Operand words that attention uses, from 0: two slots of queries, then two of weights."""
    return weight_base(params) + 2 * weight_slot_words(params)


# ---- payloads --------------------------------------------------------------------------------------------------------

def group_head(params: DesignParams) -> data.StructLayout:
    """A (group, KV head) to work on; ``blocks`` of its list follow as numbers; ``last`` of the command."""
    return data.StructLayout({
        "first_row": shapes.row_bits(params), "rows": bits_for(params.rows), "past": 32, "blocks": 32,
        "kv_head": tile_shapes.HEAD_BITS, "last": 1,
    })


def phase(params: DesignParams) -> data.StructLayout:
    """K or V phase of a tile: ``positions`` of it exist (1 … 128), ``past_positions`` of these lie in memory."""
    return data.StructLayout({
        "is_value": 1, "first_row": shapes.row_bits(params), "rows": bits_for(params.rows),
        "row_vectors": bits_for(params.max_row_vectors), "kv_head": tile_shapes.HEAD_BITS,
        "difference": signed(tile_shapes.DIFFERENCE_BITS), "positions": POSITION_BITS, "past_positions": POSITION_BITS,
        "first_tile": 1, "last_tile": 1, "last_of_command": 1,
    })


def load(params: DesignParams) -> data.StructLayout:
    """Queries to copy into the array's operand memory."""
    return data.StructLayout({
        "first_row": shapes.row_bits(params), "rows": bits_for(params.rows), "kv_head": tile_shapes.HEAD_BITS,
    })


LOADED = data.StructLayout({"turns": TURN_BITS, "value_turns": TURN_BITS})
"""Queries are in the next slot: turns − 1 of their K beats and of the V beats of their weights."""


def geometry(params: DesignParams) -> data.StructLayout:
    """What follows from a command and the pass's number of rows; stable while the command runs.

    segments = D/16; dim_groups = D/S; *_stride: words of a bank from one segment (V: word) to the next; *_head_words:
    from one KV head to the next; query_head_words: from one query head to the next, query_kv_words: … KV head ….
    """
    return data.StructLayout({
        "segments": SEGMENTS_BITS, "dim_groups": 10, "queries_per_kv": 8,
        "key_stride": bits_for(key_rows(params)), "value_stride": bits_for(value_rows(params)),
        "key_head_words": WORD_BITS, "value_head_words": WORD_BITS,
        "query_stride": bits_for(params.rows), "query_head_words": WORD_BITS, "query_kv_words": WORD_BITS,
    })


READ_STAGES = 3


def newest_read(params: DesignParams) -> wiring.Signature:
    """Read port of the newest K and V, as its user sees it: a beat in tile layout.

    K: segment s is row ``row`` + s of word ``word``. V: byte j of segment s is of row ``row`` + j; ``word`` counts
    pieces of newest_bank_bytes, ``part`` the groups of S dims within a segment. What lies outside the pass's rows is
    arbitrary.

    A read begins with ``enable`` and goes through READ_STAGES stages, from stage n to the next when ``advance[n]``;
    behind the last one ``data`` stays until the next comes there. With ``is_empty`` instead of ``enable`` zeros go the
    same way. Whatever leaves the last stage is ORed with as many copies of ``overlay`` as a beat holds.
    """
    return wiring.Signature({
        "enable": Out(1), "is_empty": Out(1), "is_value": Out(1), "row": Out(signed(ROW_INDEX_BITS)),
        "word": Out(WORD_BITS), "part": Out(4), "advance": Out(READ_STAGES), "overlay": Out(16 * params.segments),
        "data": In(8 * params.beat_bytes),
    })


def newest_scale_read(params: DesignParams) -> wiring.Signature:
    """Scales of S rows' keys or values from ``row`` on, from the cycle after ``enable`` until the next read."""
    return wiring.Signature({
        "enable": Out(1), "is_value": Out(1), "row": Out(signed(ROW_INDEX_BITS)), "kv_head": Out(tile_shapes.HEAD_BITS),
        "scales": In(data.ArrayLayout(16, params.segments)),
    })
