"""What a kernel's body may call.

Every primitive takes traced values (it is recorded), kernel values on NumPy arrays, or plain NumPy arrays (it is
computed); a Python number takes the type of what it meets. Integers never overflow: results grow.
"""

from typing import Any

import numpy as np

from hls_py.dataflow.graph import Graph, Traced
from hls_py.dataflow.operations import OPERATIONS
from hls_py.dataflow.types import FLOAT, Value, int_type
from hls_py.golden import float32


class Concrete(Value):
    """A value that is a NumPy array: canonical float32 or int64."""

    __slots__ = ("array",)

    def __init__(self, array: Any):
        self.array = array

    @property
    def is_float(self) -> bool:
        return self.array.dtype == np.float32

    def __repr__(self) -> str:
        return f"Concrete({self.array!r})"


def concrete(array: Any) -> Concrete:
    """NumPy data as a kernel value."""
    array = np.asarray(array)
    return Concrete(float32.canonical(array) if array.dtype.kind == "f" else array.astype(np.int64))


def add(a: Any, b: Any) -> Any:
    return _typed("add", a, b)


def subtract(a: Any, b: Any) -> Any:
    return _typed("subtract", a, b)


def multiply(a: Any, b: Any) -> Any:
    """a · b; by a constant power of two it costs no multiplier."""
    for x, constant in ((a, b), (b, a)):
        if isinstance(constant, int | float) and isinstance(x, Value) and _is_float(x):
            exponent = _exponent_of(float(constant))
            if exponent is not None:
                return scale_exponent(x, exponent)
    return _typed("multiply", a, b)


def scale_exponent(x: Any, exponent: int) -> Any:
    """x · 2**exponent."""
    if not -126 <= exponent <= 127:
        raise ValueError(f"2**{exponent} is not a normal float32")
    return _apply("scale_exponent", [x], exponent=exponent)


def negate(a: Any) -> Any:
    return _typed("negate", a)


def absolute(a: Any) -> Any:
    return _typed("absolute", a)


def maximum(a: Any, b: Any) -> Any:
    """The larger; −0 < +0, NaN if either is NaN."""
    return _ordered("maximum", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller; −0 < +0, NaN if either is NaN."""
    return _ordered("minimum", a, b)


def _ordered(name: str, a: Any, b: Any) -> Any:
    if _any_float(a, b):
        return _apply(f"float_{name}", [a, b])
    a_first = less(b, a) if name == "maximum" else less(a, b)
    return select(a_first, a, b)


def less(a: Any, b: Any) -> Any:
    """a < b as a Bit; −0 equals +0, NaN is not less than anything."""
    return _typed("less", a, b)


def less_equal(a: Any, b: Any) -> Any:
    return _typed("less_equal", a, b)


def equal(a: Any, b: Any) -> Any:
    return _typed("equal", a, b)


def is_nan(x: Any) -> Any:
    return _apply("is_nan", [x])


def select(condition: Any, a: Any, b: Any) -> Any:
    """a where condition is 1, else b."""
    values, wrapped = _lift([condition, a, b], floats=_any_float(a, b), integer=(0,))
    return _record("select", values, wrapped, {})


def to_float(i: Any) -> Any:
    """Integer to float32, round to nearest even."""
    return _apply("from_int", [i])


def to_fixed(x: Any, fraction_bits: int, low: int, high: int) -> Any:
    """clamp(rint(x · 2**fraction_bits), low … high), ties to even; NaN gives 0."""
    return _apply("to_fixed", [x], fraction_bits=fraction_bits, low=low, high=high)


def rint_clamp(x: Any, low: int, high: int) -> Any:
    """clamp(rint(x), low … high), ties to even; NaN gives 0."""
    return to_fixed(x, 0, low, high)


def float_bits(x: Any) -> Any:
    """The bit pattern as an unsigned 32-bit integer."""
    return _apply("float_bits", [x])


def bits_to_float(bits: Any) -> Any:
    """The float behind an unsigned 32-bit integer; subnormal patterns become zero, NaN the one NaN."""
    return _apply("bits_to_float", [bits])


def table(index: Any, *columns: tuple[int, ...]) -> Any:
    """Entry ``index`` of each column of integers (one value, or a tuple of them): a ROM as wide as the columns."""
    if len({len(column) for column in columns}) != 1:
        raise ValueError("the columns of a table are equally long")
    found = tuple(_apply("column", [index], values=column, column=n, columns=columns)
                  for n, column in enumerate(columns))
    return found if len(found) > 1 else found[0]


def shift_left(a: Any, amount: Any) -> Any:
    """a · 2**amount."""
    return _apply("shift_left", [a, amount])


def shift_right(a: Any, amount: Any) -> Any:
    """floor(a / 2**amount)."""
    return _apply("shift_right", [a, amount])


def bit_and(a: Any, b: Any) -> Any:
    return _apply("bit_and", [a, b])


def bit_or(a: Any, b: Any) -> Any:
    return _apply("bit_or", [a, b])


def bit_xor(a: Any, b: Any) -> Any:
    return _apply("bit_xor", [a, b])


def bit_slice(a: Any, bits: int | slice) -> Any:
    """Bits start … stop−1 (or one bit) as an unsigned integer; both bounds are written out and not negative."""
    start, stop = (bits.start or 0, bits.stop) if isinstance(bits, slice) else (bits, bits + 1)
    return _apply("bit_slice", [a], start=start, stop=stop)


def as_signed(a: Any, bits: int) -> Any:
    """The low ``bits`` bits read as two's complement."""
    return _apply("as_signed", [a], bits=bits)


# From here: how a primitive finds out whether it is recorded or computed.

def _typed(name: str, *operands: Any) -> Any:
    return _apply(f"float_{name}" if _any_float(*operands) else f"int_{name}", list(operands))


def _is_float(x: Any) -> bool:
    if isinstance(x, Traced):
        return x.type.is_float
    if isinstance(x, Concrete):
        return x.is_float
    return np.asarray(x).dtype.kind == "f"


def _any_float(*operands: Any) -> bool:
    return any(map(_is_float, operands))


def _exponent_of(x: float) -> int | None:
    """e if x is 2**e and so is a normal float32."""
    mantissa, exponent = np.frexp(x)
    return int(exponent) - 1 if mantissa == 0.5 and -126 <= exponent - 1 <= 127 else None


def _apply(name: str, operands: list[Any], **params: Any) -> Any:
    values, wrapped = _lift(operands, floats=_any_float(*operands))
    return _record(name, values, wrapped, params)


def _lift(operands: list[Any], floats: bool, integer: tuple[int, ...] = ()) -> tuple[list[Any], bool]:
    """Operands as values of one graph, or all concrete; and whether any of them was a kernel value."""
    graph = next((x.graph for x in operands if isinstance(x, Traced)), None)
    values = []
    for position, x in enumerate(operands):
        if not isinstance(x, Value):
            as_float = floats and position not in integer
            x = np.float32(x) if as_float and np.ndim(x) == 0 else x
            x = _constant(graph, x) if graph is not None else concrete(x)
        elif graph is not None and not isinstance(x, Traced):
            raise TypeError("a traced kernel cannot use an array; make it an argument or a table")
        values.append(x)
    return values, any(isinstance(x, Value) for x in operands)


def _constant(graph: Graph, x: Any) -> Traced:
    if np.ndim(x) != 0:
        raise TypeError("a traced kernel cannot use an array; make it an argument or a table")
    if isinstance(x, float | np.floating):
        bits = int(float32.float_bits(float32.canonical(x)))
        return Traced(graph, graph.add("constant", (), {"value": bits}, FLOAT, True))
    return Traced(graph, graph.add("constant", (), {"value": int(x)}, int_type(int(x), int(x)), True))


def _record(name: str, values: list[Any], wrapped: bool, params: dict[str, Any]) -> Any:
    operation = OPERATIONS[name]
    if isinstance(values[0], Traced):
        nodes = [value.node for value in values]
        result_type = operation.infer(*(node.type for node in nodes), **params)
        index = values[0].graph.add(name, tuple(node.index for node in nodes), params, result_type,
                                    all(node.scalar for node in nodes))
        return Traced(values[0].graph, index)
    result = operation.evaluate(*(value.array for value in values), **params)
    if not wrapped:
        return result
    return Concrete(np.asarray(result))
