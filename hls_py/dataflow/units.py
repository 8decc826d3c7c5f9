"""Units: the pipelined operators of rtl/float32 that a kernel's operations run on."""

import hashlib
from dataclasses import dataclass
from typing import Any

from hls_py.dataflow.graph import Node
from hls_py.dataflow.types import ValueType
from rtl.float32.add import FloatAdd
from rtl.float32.from_int import FloatFromInt
from rtl.float32.int_multiply import IntMultiply
from rtl.float32.lookup import Lookup
from rtl.float32.multiply import FloatMultiply
from rtl.float32.to_fixed import FloatToFixed


@dataclass(frozen=True)
class Unit:
    """Which operator (equal kind and params are interchangeable), its latency, the logic before its first register."""

    kind: str
    params: tuple[Any, ...]
    latency_cycles: int
    levels: int

    @property
    def key(self) -> tuple[str, tuple[Any, ...]]:
        return (self.kind, self.params)


PORTS = {"add": ("a", "b"), "multiply": ("a", "b"), "from_int": ("a",), "to_fixed": ("a",), "int_multiply": ("a", "b"),
         "lookup": ("index",)}


def unit_of(node: Node, types: list[ValueType]) -> Unit | None:
    """The unit that computes ``node`` from operands of ``types``; None if combinational logic does."""
    if node.operation in ("float_add", "float_subtract"):
        return Unit("add", (), FloatAdd.latency_cycles, 3)
    if node.operation == "float_multiply":
        return Unit("multiply", (), FloatMultiply.latency_cycles, 2)
    if node.operation == "from_int":
        params = (types[0].bits, types[0].signed)
        return Unit("from_int", params, FloatFromInt.latency(*params), 2 if types[0].signed else 4)
    if node.operation == "to_fixed":
        low, high = node.type.low, node.type.high
        return Unit("to_fixed", (node.param("fraction_bits"), low, high), FloatToFixed.latency(low, high), 3)
    if node.operation == "int_multiply":
        a, b = types
        return Unit("int_multiply", (a.bits, a.signed, b.bits, b.signed, node.type.bits), IntMultiply.latency_cycles, 0)
    return None


def lookup_unit(columns: tuple[tuple[int, ...], ...], widths: list[int]) -> Unit:
    """The unit of a table with these columns, the first one lowest."""
    return Unit("lookup", (columns, tuple(widths)), Lookup.latency(len(columns[0]), sum(widths)), 1)


def make(key: tuple[str, tuple[Any, ...]]) -> tuple[Any, str]:
    """The component of a unit's key, and a name for its Verilog module that no other hardware has."""
    kind, params = key
    if kind == "add":
        return FloatAdd(), "float32_add"
    if kind == "multiply":
        return FloatMultiply(), "float32_multiply"
    if kind == "from_int":
        bits, signed = params
        return FloatFromInt(bits, signed), f"float32_from_{'int' if signed else 'uint'}{bits}"
    if kind == "to_fixed":
        return FloatToFixed(*params), "float32_to_fixed_" + "_".join(f"{p}".replace("-", "n") for p in params)
    if kind == "int_multiply":
        a_bits, a_signed, b_bits, b_signed, bits = params
        return IntMultiply(*params), f"int_multiply_{'us'[a_signed]}{a_bits}_{'us'[b_signed]}{b_bits}_{bits}"
    columns, widths = params
    contents = [0] * len(columns[0])
    offset = 0
    for column, width in zip(columns, widths, strict=True):
        contents = [word | (value & (1 << width) - 1) << offset for word, value in zip(contents, column, strict=True)]
        offset += width
    digest = hashlib.sha256(repr((contents, offset)).encode()).hexdigest()[:8]
    return Lookup(contents, offset), f"lookup_{len(contents)}x{offset}_{digest}"
