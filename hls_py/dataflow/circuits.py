"""Combinational cells as Amaranth expressions."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Value

from hls_py.dataflow.cells import Cell
from rtl.float32 import bits, compare


def combinational(m: Module, cell: Cell, operands: list[Value], constants: list[int | None]) -> Value:
    """The value of ``cell``; ``operands`` have their cells' widths and signs, ``constants`` their values if known."""
    value = Value.cast(_CIRCUITS[cell.operation](m, cell, operands, constants))
    missing = cell.bits - len(value)
    if missing > 0:
        value = Cat(value, value[-1].replicate(missing) if value.shape().signed else Const(0, missing))
    return value


def _shift(m: Module, cell: Cell, operands: list[Value], constants: list[int | None]) -> Value:
    value, amount = operands
    constant = constants[1]
    if cell.operation == "shift_left":
        return Cat(Const(0, constant), value) if constant is not None else value << amount
    return value >> (amount if constant is None else constant)


def _select(m: Module, cell: Cell, operands: list[Value], constants: list[int | None]) -> Value:
    condition, a, b = operands
    return Mux(condition, a, b)


def _scale_exponent(m: Module, cell: Cell, operands: list[Value], constants: list[int | None]) -> Value:
    return bits.scale_exponent(operands[0], cell.param("exponent"))


def _slice(m: Module, cell: Cell, operands: list[Value], constants: list[int | None]) -> Value:
    return operands[0][cell.param("start"):cell.param("stop")]


def _unary(function: Any) -> Any:
    return lambda m, cell, operands, constants: function(operands[0])


def _binary(function: Any) -> Any:
    return lambda m, cell, operands, constants: function(operands[0], operands[1])


def _compare(function: Any) -> Any:
    return lambda m, cell, operands, constants: function(m, operands[0], operands[1])


_CIRCUITS: dict[str, Any] = {
    "float_negate": _unary(bits.negate),
    "float_absolute": _unary(lambda a: Cat(a[:31], Const(0, 1))),
    "float_maximum": _compare(compare.maximum),
    "float_minimum": _compare(compare.minimum),
    "float_less": _compare(compare.less),
    "float_less_equal": _compare(compare.less_equal),
    "float_equal": _compare(compare.equal),
    "is_nan": _unary(bits.canonical_is_nan),
    "scale_exponent": _scale_exponent,
    "canonical": _unary(bits.canonical),
    "bits_to_float": _unary(lambda a: bits.canonical(Cat(a, Const(0, 32))[:32])),
    "from_bfloat16": _unary(lambda a: Cat(Const(0, 16), a)),
    "float_bits": _unary(lambda a: a),
    "int_add": _binary(lambda a, b: a + b),
    "int_subtract": _binary(lambda a, b: a - b),
    "int_negate": _unary(lambda a: -a),
    "int_absolute": _unary(abs),
    "int_less": _binary(lambda a, b: a < b),
    "int_less_equal": _binary(lambda a, b: a <= b),
    "int_equal": _binary(lambda a, b: a == b),
    "bit_and": _binary(lambda a, b: a & b),
    "bit_or": _binary(lambda a, b: a | b),
    "bit_xor": _binary(lambda a, b: a ^ b),
    "shift_left": _shift,
    "shift_right": _shift,
    "bit_slice": _slice,
    "column": _slice,
    "as_signed": _unary(lambda a: a),
    "select": _select,
}
