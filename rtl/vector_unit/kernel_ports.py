"""Wiring kernels: pipelines compiled elsewhere, whose payload fields are named as the kernel's arguments."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Value
from amaranth.lib import data

Kernels = Mapping[str, Any]
"""Kernel name → object whose ``pipeline(lanes, ii, tag_bits, bits)`` is a component with streams ``i`` and ``o``."""


def assign(payload: data.View, **values: Any) -> list:
    """Statements that set fields of a kernel's input.

    A field with one element a lane takes a sequence of them, or one value for all lanes.
    """
    statements = []
    for name, value in values.items():
        field = payload[name]
        if not (isinstance(field, data.View) and isinstance(field.shape(), data.ArrayLayout)):
            statements.append(field.eq(value))
            continue
        lanes = field.shape().length
        is_sequence = isinstance(value, list | tuple) or (
            isinstance(value, data.View) and isinstance(value.shape(), data.ArrayLayout))
        for lane in range(lanes):
            statements.append(field[lane].eq(value[lane] if is_sequence else value))
    return statements


def lane(field: Any, number: int) -> Value:
    """Element ``number`` of a result with one element a lane (or the result itself if it is plain)."""
    if isinstance(field, data.View) and isinstance(field.shape(), data.ArrayLayout):
        return field[number]
    assert number == 0
    return field
