"""What the host hands over for one pass, as it lies in linear memory behind port 0 (64-byte aligned).

header (64 bytes), then ``rows`` row entries (16 bytes each), then ``groups`` group entries (32 bytes each).
"""

from enum import IntFlag

from rtl.contract.bitfields import Field, WordLayout
from rtl.contract.number_formats import round_up

PASS_MAGIC = 0x7E11BA55

PASS_HEADER = WordLayout("pass_header", 16, [
    Field("magic", 0, 0, 32, "PASS_MAGIC"),
    Field("rows", 1, 0, 8, "rows, 1 … P"),
    Field("groups", 1, 8, 8, "groups, 1 … rows"),
    Field("flags", 1, 16, 16, "PassFlag bits"),
    Field("program_address", 2, 0, 64, "byte address of the first command word, 32-byte aligned"),
    Field("commands", 4, 0, 32, "command words, the last one END"),
    Field("extents", 5, 0, 32, "extents of the weight stream, in consumption order"),
    Field("extents_address", 6, 0, 64, "byte address of the first extent, 16-byte aligned"),
    Field("logits_address", 8, 0, 64, "byte address of row 0's logits, 64-byte aligned"),
    Field("logits_row_bytes", 10, 0, 32, "bytes from one row's logits to the next, a multiple of 64"),
    Field("design_id", 11, 0, 32, "low 32 bits of the design_hash that the program was compiled for"),
    Field("results_address", 12, 0, 64, "byte address of row 0's result (RESULT_HEADER and top-k), 64-byte aligned"),
    Field("list_layer_bytes", 14, 0, 32, "block lists: bytes from one layer to the next, 0 where layers share a list"),
    Field("list_head_bytes", 15, 0, 32, "block lists: bytes from one KV head to the next, 0 where heads share a list"),
])


class PassFlag(IntFlag):
    """Bits of ``flags`` in the header."""

    NO_PREFETCH = 1
    """Don't prefetch this pass's first extent for the next pass."""


class RowFlag(IntFlag):
    """Bits of a row's ``flags``."""

    TOKEN_FROM_SLOT = 1
    """The token is the argmax kept for ``token`` (a slot number): its last logits row in a preceding pass."""
    ARGMAX = 2
    """Wants the argmax: kept for the row's slot and written to the results."""
    TOP_K = 4
    """Wants the k best logits, written to the results."""
    LOGITS = 8
    """Wants all logits, written to memory."""


ROW_ENTRY = WordLayout("row_entry", 4, [
    Field("position", 0, 0, 32, "position in its sequence"),
    Field("token", 1, 0, 32, "token id, or the slot with TOKEN_FROM_SLOT"),
    Field("slot", 2, 0, 16, "sequence slot, for the argmax kept on chip"),
    Field("flags", 2, 16, 16, "RowFlag bits"),
    Field("visible", 3, 0, 32,
          "bit j: this row sees the new token of row j of the pass (causal: its own and earlier of its group)"),
])

GROUP_ENTRY = WordLayout("group_entry", 8, [
    Field("first_row", 0, 0, 8, "first of the group's rows, which are contiguous"),
    Field("rows", 0, 8, 8, "rows, ≥ 1"),
    Field("past", 1, 0, 32,
          "positions in memory before the pass; row i of the group has position past + i unless drafts branch"),
    Field("list_address", 2, 0, 64, "byte address of the block list of layer 0, KV head 0; 16-byte aligned"),
    Field("blocks", 4, 0, 32, "entries: ceil((past + rows)/128), newest block first"),
])

EXTENT_BEATS_WORD = 0


def extent_bytes(ports: int) -> int:
    """Bytes of one extent: beats (32 bits), reserved (32 bits), then one 64-bit byte address a port."""
    return round_up(8 + 8 * ports, 16)


RESULT_HEADER = WordLayout("result_header", 4, [
    Field("token", 0, 0, 32, "argmax"),
    Field("logit", 1, 0, 32, "its logit", "float32"),
    Field("count", 2, 0, 32, "top-k entries that follow, unsorted"),
])
"""A row's result; followed by ``count`` pairs of (token, float32 logit), 8 bytes each."""


def result_bytes(top_k: int) -> int:
    """Bytes from one row's result to the next."""
    return round_up(RESULT_HEADER.size_bytes + 8 * top_k, 64)
