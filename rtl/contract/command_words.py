"""The program: command words of 32 bytes, fetched in order, issued to the units' queues.

A command starts when every semaphore of its ``wait`` mask is above zero (each is then decremented) and, when it is
done, increments every semaphore of its ``signal`` mask. Commands of one unit run in order; units run concurrently.
Elements are counted with padding to VECTOR_ALIGN unless said otherwise; "words" are W elements.
"""

from enum import IntEnum

from rtl.contract.bitfields import Field, WordLayout

COMMAND_WORDS = 8
COMMAND_BYTES = 4 * COMMAND_WORDS
SEMAPHORES = 16
QUEUE_COMMANDS = 8
"""Commands that a unit's queue holds."""
DRAIN_TILES = 8
"""Finished tiles that the drain ring lists, if their steps fit into it."""


class Opcode(IntEnum):
    END = 0
    """Wait until every unit is idle and every write is acknowledged; the pass is done."""
    TILE = 1
    """Ternary matmul of one tile; result goes to the drain ring."""
    DRAIN = 2
    """Vector unit: turn a tile (or a gate/up pair) of accumulators into residual, heads or FFN vector."""
    QUANTISE = 3
    """Vector unit: (norm and) quantise a vector to int8 activations, K slice by K slice."""
    GATHER = 4
    """Embedding rows and rotary table rows of the pass's rows."""
    ATTEND = 5
    """Attention of one layer for every group."""
    KV_WRITE = 6
    """Write the pass's new keys and values of one layer to memory."""
    HEAD = 7
    """Logits of the rows that want them."""


class Unit(IntEnum):
    """Queue that takes the command."""

    ENGINE = 0
    DRAIN = 1
    QUANTISE = 2
    GATHER = 3
    ATTENTION = 4
    KV_WRITER = 5
    HEAD = 6


UNIT_OF = {
    Opcode.TILE: Unit.ENGINE,
    Opcode.DRAIN: Unit.DRAIN,
    Opcode.QUANTISE: Unit.QUANTISE,
    Opcode.GATHER: Unit.GATHER,
    Opcode.ATTEND: Unit.ATTENTION,
    Opcode.KV_WRITE: Unit.KV_WRITER,
    Opcode.HEAD: Unit.HEAD,
}


class DrainMode(IntEnum):
    RESIDUAL = 0
    """residual += acc·scale"""
    QUERY = 1
    """acc·scale, rotate, quantise a head, to the query buffer"""
    KEY = 2
    """acc·scale, rotate, quantise a head, to the newest K"""
    VALUE = 3
    """acc·scale, quantise a head, to the newest V"""
    GATED = 4
    """act(gate·scale)·(up·scale2) of a gate tile and the up tile behind it, to the FFN vector"""


class ActivationFunction(IntEnum):
    """Gated activation of the FFN; a design holds some of them."""

    SILU = 0
    RELU_SQUARED = 1


class QuantiseSource(IntEnum):
    RESIDUAL = 0
    VECTOR = 1


class QuantiseTarget(IntEnum):
    ACTIVATION = 0
    """int8 activation buffer, K-slice-major, for TILE"""
    HEAD = 1
    """operands of the int8 array, for HEAD"""


def _command(name: str, fields: list[Field], doc: str) -> WordLayout:
    common = [
        Field("opcode", 0, 0, 8, "an Opcode"),
        Field("wait", 1, 0, SEMAPHORES, "semaphores to wait for"),
        Field("signal", 1, 16, SEMAPHORES, "semaphores to signal when done"),
    ]
    return WordLayout(name, COMMAND_WORDS, common + fields, doc)


COMMON = _command("command", [], "What every command has.")

END = _command("end", [], Opcode.END.__doc__ or "")

TILE = _command("tile", [
    Field("activation", 0, 8, 1, "activation buffer to read"),
    Field("release", 0, 9, 1, "last tile that reads this buffer: it is free once the last slice's tables are built"),
    Field("steps", 2, 0, 16, "steps of the tile, 1 … tile_steps"),
    Field("slices", 2, 16, 16, "K slices, ≥ 1"),
], "Sweep one tile: for each slice, for each step, one beat of codes.")

DRAIN = _command("drain", [
    Field("mode", 0, 8, 3, "a DrainMode"),
    Field("activation", 0, 11, 1, "activation buffer whose row scales apply"),
    Field("statistics", 0, 12, 1, "gather norm statistics of what is written"),
    Field("has_norm", 0, 13, 1, "those statistics are of a norm with gains (else plain absmax)"),
    Field("gain_bank", 0, 14, 1, "bank of those gains"),
    Field("function", 0, 16, 4, "GATED: an ActivationFunction"),
    Field("steps", 2, 0, 16, "steps of the tile (of each of the pair)"),
    Field("outputs", 2, 16, 16, "valid outputs of the tile, a multiple of VECTOR_ALIGN, ≤ steps·Q rounded up to it"),
    Field("first_word", 3, 0, 16, "RESIDUAL, GATED: word index in the destination vector of the tile's first output"),
    Field("row_words", 3, 16, 16, "RESIDUAL, GATED: words from one row to the next in the destination memory"),
    Field("head_dim", 4, 0, 16, "QUERY, KEY, VALUE: true head_dim (its outputs are padded to VECTOR_ALIGN)"),
    Field("first_head", 4, 16, 16, "QUERY, KEY, VALUE: number of the tile's first head"),
    Field("scale", 5, 0, 32, "weight scale of the matrix (gate's of a pair)", "float32"),
    Field("scale2", 6, 0, 32, "GATED: weight scale of up", "float32"),
], "Drain one tile of the ring: row by row, outputs rising.")

QUANTISE = _command("quantise", [
    Field("source", 0, 8, 1, "a QuantiseSource"),
    Field("target", 0, 9, 1, "a QuantiseTarget"),
    Field("activation", 0, 10, 1, "activation buffer to fill (target ACTIVATION)"),
    Field("has_norm", 0, 11, 1, "RMSNorm with gains before quantising"),
    Field("gain_bank", 0, 12, 1, "bank of the gains, released after the last slice when has_norm"),
    Field("words", 2, 0, 16, "words of a row"),
    Field("row_words", 2, 16, 16, "words from one row to the next in the source memory"),
    Field("slices", 3, 0, 16,
          "slices of T·G elements (target ACTIVATION) or segments of 16 (target HEAD); the rest is zero"),
    Field("inverse_count", 4, 0, 32, "1/n for the mean, n the true number of elements", "float32"),
    Field("epsilon", 5, 0, 32, "the norm's eps", "float32"),
], "inverse and scale of every row from its statistics, then int8 codes, all rows of a slice, slice by slice.")

GATHER = _command("gather", [
    Field("has_norm", 0, 8, 1, "statistics are of a norm with gains"),
    Field("gain_bank", 0, 9, 1, "bank of those gains"),
    Field("words", 2, 0, 16, "words of an embedding row"),
    Field("row_words", 2, 16, 16, "words from one row to the next in the residual memory"),
    Field("pairs", 3, 0, 16, "rotary pairs of a position: head_dim/2"),
    Field("embedding_beat", 4, 0, 32, "first beat of the embedding (bfloat16 rows) from the table base"),
    Field("embedding_row_beats", 5, 0, 16, "beats from one token to the next"),
    Field("rotary_row_beats", 5, 16, 16, "beats from one position to the next"),
    Field("rotary_beat", 6, 0, 32, "first beat of the rotary table from the table base"),
], "residual = embedding[token]; rotary row = (cos, sin) float32 pairs of the position; statistics of the residual.")

ATTEND = _command("attend", [
    Field("has_norm", 0, 8, 1, "statistics are of a norm with gains (a sub-norm)"),
    Field("gain_bank", 0, 9, 1, "bank of those gains"),
    Field("kv_heads", 0, 16, 8, "KV heads"),
    Field("queries_per_kv", 0, 24, 8, "query heads that share a KV head"),
    Field("head_dim", 2, 0, 16, "true head_dim"),
    Field("layer", 2, 16, 16, "layer, for the block lists' stride"),
    Field("block_beats", 3, 0, 32, "beats from one block number to the next"),
    Field("layer_beat", 4, 0, 32, "first beat of this layer's tiles within a block"),
    Field("head_beats", 5, 0, 32, "beats from one KV head's tile to the next"),
    Field("factor", 6, 0, 32, "log2(e)/sqrt(head_dim)", "float32"),
    Field("row_words", 7, 0, 16, "words from one row to the next in the vector memory"),
], "Attention of every group, KV heads rising; output of head h starts at element h·round_up(head_dim, 8).")

KV_WRITE = _command("kv_write", [
    Field("kv_heads", 0, 16, 8, "KV heads"),
    Field("head_dim", 2, 0, 16, "true head_dim"),
    Field("layer", 2, 16, 16, "layer, for the block lists' stride"),
    Field("block_beats", 3, 0, 32, "beats from one block number to the next"),
    Field("layer_beat", 4, 0, 32, "first beat of this layer's tiles within a block"),
    Field("head_beats", 5, 0, 32, "beats from one KV head's tile to the next"),
], "Write the newest K and V (codes and scales) of every group to their blocks.")

HEAD = _command("head", [
    Field("vocabulary", 2, 0, 32, "vocabulary rows"),
    Field("segments", 3, 0, 16, "segments of 16 dims of a vocabulary row"),
    Field("top_k", 3, 16, 16, "k, 1 … the design's top_k"),
], "logit = float32(acc)·row scale·vocabulary-row scale; argmax, top-k and logits of the rows that ask.")

LAYOUTS = {
    Opcode.END: END,
    Opcode.TILE: TILE,
    Opcode.DRAIN: DRAIN,
    Opcode.QUANTISE: QUANTISE,
    Opcode.GATHER: GATHER,
    Opcode.ATTEND: ATTEND,
    Opcode.KV_WRITE: KV_WRITE,
    Opcode.HEAD: HEAD,
}


def decode(raw: bytes) -> tuple[Opcode, dict[str, int | float]]:
    """Opcode and fields of one command word; ``ValueError`` for an unknown opcode."""
    return Opcode(raw[0]), LAYOUTS[Opcode(raw[0])].unpack(raw)
