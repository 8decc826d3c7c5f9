"""The catalogue of stream payloads and shared signals between blocks; docs/architecture.md says who speaks to whom."""

from typing import TYPE_CHECKING

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.bitfields import WordLayout
from rtl.contract.command_words import COMMAND_BYTES
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for
from rtl.contract.weight_encodings import code_bits

COMMAND_BITS = 8 * COMMAND_BYTES
BEAT_ADDRESS_BITS = 32
BEATS_BITS = 16


if TYPE_CHECKING:
    from enum import Enum
else:
    from amaranth.lib.enum import Enum


class HeadKind(Enum, shape=2):  # type: ignore[call-arg]
    QUERY = 0
    KEY = 1
    VALUE = 2


def command_layout(layout: WordLayout) -> data.FlexibleLayout:
    """View of a command or descriptor by the contract's field names."""
    return data.FlexibleLayout(32 * layout.words, {f.name: data.Field(f.width, f.bit) for f in layout.fields.values()})


def row_bits(params: DesignParams) -> int:
    return bits_for(params.rows - 1)


def beat(params: DesignParams) -> data.StructLayout:
    """A beat of the weight stream, framed by its record's payload; ``bank`` is bit 0 of the record's flags."""
    return data.StructLayout({"data": 8 * params.beat_bytes, "first": 1, "last": 1, "bank": 1})


def activation_slice(params: DesignParams) -> data.StructLayout:
    """T·G int8 activations of one row, K rising from the low byte."""
    return data.StructLayout({
        "buffer": 1, "slice": 16, "row": row_bits(params), "data": 8 * params.slice_elements,
    })


def vector_word(params: DesignParams) -> data.StructLayout:
    """W float32 elements of a row's vector, and which statistics they belong to; ``last`` on the command's last word.

    ``word`` counts in the row; in memory rows lie ``row_words`` words apart.
    """
    return data.StructLayout({
        "row": row_bits(params), "word": 16, "row_words": 16, "data": data.ArrayLayout(32, params.vector_lanes),
        "statistics": 1, "has_norm": 1, "gain_bank": 1, "last": 1,
    })


def head_segment(params: DesignParams) -> data.StructLayout:
    """16 int8 dims of a quantised query, key or value head."""
    return data.StructLayout({
        "kind": HeadKind, "row": row_bits(params), "head": 8, "segment": 6, "data": 8 * SEGMENT_BYTES,
    })


def head_scale(params: DesignParams) -> data.StructLayout:
    """bfloat16 scale of a quantised head."""
    return data.StructLayout({"kind": HeadKind, "row": row_bits(params), "head": 8, "scale": 16})


def head_operand(params: DesignParams) -> data.StructLayout:
    """16 int8 elements of a row's final hidden vector."""
    return data.StructLayout({"row": row_bits(params), "segment": 12, "data": 8 * SEGMENT_BYTES})


def row_scale(params: DesignParams) -> data.StructLayout:
    return data.StructLayout({"row": row_bits(params), "scale": 32})


OPERAND_ADDRESS_BITS = 12
DOT_TAG_BITS = 16


def operand_write(params: DesignParams) -> data.StructLayout:
    """Bytes for one row-vector lane of the operand memory; mask bit b enables byte b."""
    return data.StructLayout({
        "address": OPERAND_ADDRESS_BITS, "lane": bits_for(params.row_vectors - 1), "mask": SEGMENT_BYTES,
        "data": 8 * SEGMENT_BYTES,
    })


def dot_beat(params: DesignParams) -> data.StructLayout:
    """A beat of S segments for the int8 array.

    Turn j (0 … ``turns``) multiplies segment s with lane a of operand word ``operand + j·turn_stride``. Accumulators
    [turn][A][S] start on ``first`` and are emitted after ``last``.
    """
    return data.StructLayout({
        "data": 8 * params.beat_bytes, "operand": OPERAND_ADDRESS_BITS, "turns": 6, "turn_stride": OPERAND_ADDRESS_BITS,
        "first": 1, "last": 1, "tag": DOT_TAG_BITS,
    })


def dot_result(params: DesignParams) -> data.StructLayout:
    """Sums of one turn: ``dots[a][s]`` signed 32 bits; ``tag`` of the beat that was ``last``."""
    return data.StructLayout({
        "turn": 6, "tag": DOT_TAG_BITS,
        "dots": data.ArrayLayout(data.ArrayLayout(32, params.segments), params.row_vectors),
    })


STRIPED_REQUEST = data.StructLayout({"beat": BEAT_ADDRESS_BITS, "beats": BEATS_BITS})
"""Beats of striped memory: port p holds bytes p·port_bytes … of every beat, at base[p] + beat·port_bytes."""


def linear_request(params: DesignParams) -> data.StructLayout:
    """32-bit words of linear memory behind port 0."""
    return data.StructLayout({"address": params.address_bits, "words": 24})


def port_request(params: DesignParams) -> data.StructLayout:
    """Words of one port: byte address (aligned to port_bytes) and number of port words, ≥ 1."""
    return data.StructLayout({"address": params.address_bits, "beats": BEATS_BITS})


def port_write_word(params: DesignParams) -> data.StructLayout:
    return data.StructLayout({"data": 8 * params.port_bytes, "strobe": params.port_bytes})


def striped_write_word(params: DesignParams) -> data.StructLayout:
    return data.StructLayout({"data": 8 * params.beat_bytes, "strobe": params.beat_bytes})


def extent(params: DesignParams) -> data.StructLayout:
    """A piece of the weight stream: ``beats`` beats, port p's words from byte address ``base[p]``."""
    return data.StructLayout({"beats": 32, "base": data.ArrayLayout(params.address_bits, params.ports)})


def drain_tile(params: DesignParams) -> data.StructLayout:
    """A finished tile in the drain ring: address of its first step, number of steps."""
    return data.StructLayout({"base": bits_for(params.drain_steps - 1), "steps": 16})


def drain_read(params: DesignParams) -> wiring.Signature:
    """Read port of the drain ring, as its user sees it; ``data`` follows ``enable`` by DRAIN_READ_LATENCY cycles."""
    return wiring.Signature({
        "enable": Out(1), "step": Out(bits_for(params.drain_steps - 1)), "row": Out(row_bits(params)),
        "data": In(data.ArrayLayout(_signed(params.accumulator_bits), params.outputs)),
    })


DRAIN_READ_LATENCY = 2

DRAIN_RELEASE = data.StructLayout({"valid": 1, "steps": 16})
"""In a cycle with ``valid`` the oldest tile of the ring, of ``steps`` steps, may be overwritten; always accepted."""


def _signed(width: int):
    from amaranth.hdl import signed
    return signed(width)


def pass_state(params: DesignParams) -> wiring.Signature:
    """What a pass is, as control publishes it; stable from before the first command until END."""
    rows = params.rows
    count = bits_for(rows)

    def array(shape: int):
        return Out(data.ArrayLayout(shape, rows))

    return wiring.Signature({
        "rows": Out(count), "groups": Out(count),
        "position": array(32), "token": array(32), "slot": array(16), "flags": array(16), "visible": array(rows),
        "first_row": array(row_bits(params)), "group_rows": array(count), "past": array(32),
        "list_address": array(params.address_bits), "blocks": array(32),
        "list_layer_bytes": Out(32), "list_head_bytes": Out(32),
        "logits_address": Out(params.address_bits), "logits_row_bytes": Out(32),
        "results_address": Out(params.address_bits),
    })


def code_beat_bits(params: DesignParams) -> int:
    """Bits of the T·Q engine codes of a step."""
    return params.tables * params.outputs * code_bits(params.group)


def framed(params: DesignParams) -> stream.Signature:
    return stream.Signature(beat(params))
