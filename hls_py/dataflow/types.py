"""Types of kernel arguments, results and of every value in between.

    Float32          IEEE-754 binary32 (rtl/float32)
    BFloat16         16 bits on a wire, a Float32 with 16 zero bits inside a kernel
    Int32, Int8      signed integers;  Int[n], UInt[n]: n bits;  Bit: one bit
    Scalar[T]        an argument that all lanes of a pipeline share

The names are annotations; what the compiler works with is a ``ValueType``. An integer's type is its *range*, so that a
sum or a product is exactly as wide as it must be and never overflows; cutting bits off is written out by the kernel.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
MAX_INT_BITS = 63
"""The golden computes integers in int64."""


@dataclass(frozen=True)
class ValueType:
    """``kind`` is ``"float"`` or ``"int"``; an int lies in low … high."""

    kind: str
    low: int = 0
    high: int = 0

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def signed(self) -> bool:
        return not self.is_float and self.low < 0

    @property
    def bits(self) -> int:
        """Width in hardware."""
        if self.is_float:
            return 32
        if self.low < 0:
            return max((~self.low).bit_length(), self.high.bit_length() if self.high > 0 else 0) + 1
        return max(1, self.high.bit_length())


FLOAT = ValueType("float")


def int_type(low: int, high: int) -> ValueType:
    """Integer of a range; ValueError if the golden could not hold it."""
    result = ValueType("int", low, high)
    if low > high or result.bits > MAX_INT_BITS + (low < 0):
        raise ValueError(f"an integer in {low} … {high} does not fit the {MAX_INT_BITS} bits of the golden")
    return result


def int_bits(bits: int, signed: bool) -> ValueType:
    """Integer of ``bits`` bits."""
    return int_type(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else int_type(0, (1 << bits) - 1)


class Value:
    """What a kernel's body sees: arithmetic on it is recorded or computed (see ``primitives``)."""

    __array_ufunc__ = None  # NumPy hands its operators over instead of looping over us

    def __add__(self, other: Any) -> Any:
        return _apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _apply("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _apply("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return _apply("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _apply("multiply", other, self)

    def __neg__(self) -> Any:
        return _apply("negate", self)

    def __abs__(self) -> Any:
        return _apply("absolute", self)

    def __lt__(self, other: Any) -> Any:
        return _apply("less", self, other)

    def __gt__(self, other: Any) -> Any:
        return _apply("less", other, self)

    def __ge__(self, other: Any) -> Any:
        return _apply("less_equal", other, self)

    def __le__(self, other: Any) -> Any:
        return _apply("less_equal", self, other)

    def __eq__(self, other: Any) -> Any:
        return _apply("equal", self, other)

    def __ne__(self, other: Any) -> Any:
        return _apply("equal", self, other) ^ 1

    __hash__ = None  # type: ignore[assignment]

    def __and__(self, other: Any) -> Any:
        return _apply("and", self, other)

    def __rand__(self, other: Any) -> Any:
        return _apply("and", other, self)

    def __or__(self, other: Any) -> Any:
        return _apply("or", self, other)

    def __ror__(self, other: Any) -> Any:
        return _apply("or", other, self)

    def __xor__(self, other: Any) -> Any:
        return _apply("xor", self, other)

    def __rxor__(self, other: Any) -> Any:
        return _apply("xor", other, self)

    def __lshift__(self, other: Any) -> Any:
        return _apply("shift_left", self, other)

    def __rshift__(self, other: Any) -> Any:
        return _apply("shift_right", self, other)

    def __getitem__(self, bits: Any) -> Any:
        return _apply("slice", self, bits)

    def __bool__(self) -> bool:
        raise TypeError("a traced value has no truth; write select(condition, a, b)")


def _apply(operation: str, *operands: Any) -> Any:
    from hls_py.dataflow import primitives
    return getattr(primitives, {"and": "bit_and", "or": "bit_or", "xor": "bit_xor", "slice": "bit_slice"}
                   .get(operation, operation))(*operands)


class Float32(Value):
    wire_bits = 32
    type = FLOAT


class BFloat16(Value):
    wire_bits = 16
    type = FLOAT


class Int(Value):
    """Signed integer; ``Int[24]`` has 24 bits."""

    type: ValueType
    wire_bits: int

    def __class_getitem__(cls, bits: int) -> Any:
        return _int_class(bits, signed=True)


class UInt(Value):
    """Unsigned integer; ``UInt[21]`` has 21 bits."""

    type: ValueType
    wire_bits: int

    def __class_getitem__(cls, bits: int) -> Any:
        return _int_class(bits, signed=False)


def _int_class(bits: int, signed: bool) -> Any:
    base = Int if signed else UInt
    return type(f"{base.__name__}{bits}", (base,), {"type": int_bits(bits, signed), "wire_bits": bits})


class Int32(Int):
    type = int_bits(32, True)
    wire_bits = 32


class Int8(Int):
    type = int_bits(8, True)
    wire_bits = 8


class Bit(UInt):
    type = int_bits(1, False)
    wire_bits = 1


class Scalar(Value, Generic[T]):
    """``Scalar[T]``: an argument of type T of which a pipeline's word holds one for all lanes."""
