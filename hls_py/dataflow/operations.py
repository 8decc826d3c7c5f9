"""The operations a kernel is made of: how each one's result type follows from its operands, and its value in NumPy.

Hardware for the same names is in ``hls_py.dataflow.hardware``. Floats are canonical float32 arrays (see
``hls_py.golden.float32``), integers int64 arrays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hls_py.dataflow.types import FLOAT, ValueType, int_bits, int_type
from hls_py.golden import float32

BIT = int_type(0, 1)
Infer = Callable[..., ValueType]


@dataclass(frozen=True)
class Operation:
    """``infer(operand types…, **params)`` gives the result's type, ``evaluate(arrays…, **params)`` its value."""

    infer: Infer
    evaluate: Callable[..., Any]


def _float(*operands: ValueType, **_: Any) -> ValueType:
    return FLOAT


def _bit(*operands: ValueType, **_: Any) -> ValueType:
    return BIT


def _add(a: ValueType, b: ValueType) -> ValueType:
    return int_type(a.low + b.low, a.high + b.high)


def _subtract(a: ValueType, b: ValueType) -> ValueType:
    return int_type(a.low - b.high, a.high - b.low)


def _multiply(a: ValueType, b: ValueType) -> ValueType:
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return int_type(min(corners), max(corners))


def _negate(a: ValueType) -> ValueType:
    return int_type(-a.high, -a.low)


def _absolute(a: ValueType) -> ValueType:
    return int_type(0, max(-a.low, a.high))


def _bitwise(a: ValueType, b: ValueType) -> ValueType:
    signed = a.signed or b.signed
    return int_bits(max(x.bits + (signed and not x.signed) for x in (a, b)), signed)


def _and(a: ValueType, b: ValueType) -> ValueType:
    unsigned = [x.bits for x in (a, b) if not x.signed]
    return int_bits(min(unsigned), signed=False) if unsigned else _bitwise(a, b)


def _shift_left(a: ValueType, amount: ValueType) -> ValueType:
    return int_type(min(a.low, a.low << amount.high), max(a.high, a.high << amount.high))


def _shift_right(a: ValueType, amount: ValueType) -> ValueType:
    corners = [x >> y for x in (a.low, a.high) for y in (amount.low, amount.high)]
    return int_type(min(corners), max(corners))


def _slice(a: ValueType, start: int, stop: int) -> ValueType:
    if not 0 <= start < stop <= a.bits:
        raise ValueError(f"bits {start}:{stop} of a value of {a.bits} bits")
    return int_bits(stop - start, signed=False)


def _as_signed(a: ValueType, bits: int) -> ValueType:
    if a.bits > bits:
        raise ValueError(f"{a.bits} bits read as {bits}")
    return int_bits(bits, signed=True)


def _union(condition: ValueType, a: ValueType, b: ValueType) -> ValueType:
    return FLOAT if a.is_float else int_type(min(a.low, b.low), max(a.high, b.high))


def _range(*operands: ValueType, low: int, high: int, **_: Any) -> ValueType:
    return int_type(low, high)


def _to_fixed(x: ValueType, fraction_bits: int, low: int, high: int) -> ValueType:
    if not low <= 0 <= high:
        raise ValueError(f"NaN gives 0, which is not in {low} … {high}")
    return int_type(low, high)


def _column(index: ValueType, values: tuple[int, ...], **_: Any) -> ValueType:
    if index.low < 0 or index.high >= len(values):
        raise ValueError(f"a table of {len(values)} entries is looked up with {index.low} … {index.high}")
    return int_type(min(values), max(values))


def _shift_right_value(a: Any, amount: Any) -> Any:
    return np.right_shift(a, np.minimum(amount, 63))  # NumPy leaves longer shifts undefined


def _as_bit(predicate: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands: predicate(*operands).astype(np.int64)  # NumPy's booleans add up to a boolean


OPERATIONS: dict[str, Operation] = {
    # float32
    "float_add": Operation(_float, float32.add),
    "float_subtract": Operation(_float, float32.subtract),
    "float_multiply": Operation(_float, float32.multiply),
    "float_negate": Operation(_float, float32.negate),
    "float_absolute": Operation(_float, float32.absolute),
    "float_maximum": Operation(_float, float32.maximum),
    "float_minimum": Operation(_float, float32.minimum),
    "float_less": Operation(_bit, _as_bit(np.less)),
    "float_less_equal": Operation(_bit, _as_bit(np.less_equal)),
    "float_equal": Operation(_bit, _as_bit(np.equal)),
    "is_nan": Operation(_bit, _as_bit(np.isnan)),
    "scale_exponent": Operation(_float, float32.scale_exponent),
    "from_int": Operation(_float, float32.from_int),
    "to_fixed": Operation(_to_fixed, float32.to_fixed),
    "float_bits": Operation(lambda x: int_bits(32, signed=False), float32.float_bits),
    "bits_to_float": Operation(_float, float32.bits_to_float),
    "canonical": Operation(_float, float32.canonical),
    # integers
    "int_add": Operation(_add, np.add),
    "int_subtract": Operation(_subtract, np.subtract),
    "int_multiply": Operation(_multiply, np.multiply),
    "int_negate": Operation(_negate, np.negative),
    "int_absolute": Operation(_absolute, np.abs),
    "int_less": Operation(_bit, _as_bit(np.less)),
    "int_less_equal": Operation(_bit, _as_bit(np.less_equal)),
    "int_equal": Operation(_bit, _as_bit(np.equal)),
    "bit_and": Operation(_and, np.bitwise_and),
    "bit_or": Operation(_bitwise, np.bitwise_or),
    "bit_xor": Operation(_bitwise, np.bitwise_xor),
    "shift_left": Operation(_shift_left, np.left_shift),
    "shift_right": Operation(_shift_right, _shift_right_value),
    "bit_slice": Operation(_slice, lambda a, start, stop: (a >> start) & ((1 << stop - start) - 1)),
    "as_signed": Operation(_as_signed, lambda a, bits: ((a & ((1 << bits) - 1)) ^ (1 << bits - 1)) - (1 << bits - 1)),
    "column": Operation(_column, lambda index, values, **_: _values(values)[index]),
    "select": Operation(_union, lambda c, a, b: np.where(c, a, b)),
}

_ARRAYS: dict[int, tuple[Sequence[int], Any]] = {}


def _values(values: tuple[int, ...]) -> Any:
    """The tuple as an array; the tables of a kernel are module constants, so they are converted once."""
    known = _ARRAYS.get(id(values))
    if known is None or known[0] is not values:
        known = _ARRAYS[id(values)] = (values, np.array(values, np.int64))
    return known[1]
