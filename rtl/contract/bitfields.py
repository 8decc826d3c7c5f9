"""Named bit fields in 32-bit little-endian words: how commands, descriptors and headers are declared once."""

from __future__ import annotations

import struct
from dataclasses import dataclass


def float_bits(value: float) -> int:
    """IEEE-754 binary32 pattern of ``value`` (rounded to nearest)."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def bits_float(bits: int) -> float:
    """The float behind a binary32 pattern."""
    return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0])


@dataclass(frozen=True)
class Field:
    """``width`` bits from bit ``lsb`` of word ``word``; ``kind`` is 'uint' or 'float32' (a bit pattern)."""

    name: str
    word: int
    lsb: int
    width: int
    doc: str
    kind: str = "uint"

    @property
    def bit(self) -> int:
        """Position of the lowest bit in the whole layout."""
        return 32 * self.word + self.lsb


class WordLayout:
    """A fixed number of 32-bit words with named fields; packs and unpacks Python integers.

    A field may be up to 64 bits wide and may start only where it doesn't overlap another one.
    """

    def __init__(self, name: str, words: int, fields: list[Field], doc: str = ""):
        self.name, self.words, self.doc = name, words, doc
        self.fields = {f.name: f for f in fields}
        if len(self.fields) != len(fields):
            raise ValueError(f"layout {name}: a field name occurs twice")
        taken = 0
        for f in fields:
            mask = ((1 << f.width) - 1) << f.bit
            if taken & mask or f.bit + f.width > 32 * words:
                raise ValueError(f"layout {name}: field {f.name} overlaps another or lies outside the words")
            taken |= mask

    @property
    def size_bytes(self) -> int:
        return 4 * self.words

    def pack_int(self, **values: int | float) -> int:
        """One integer of ``32·words`` bits; unnamed fields are zero.

        Raises ``ValueError`` naming the field when a value doesn't fit or a name is unknown.
        """
        total = 0
        for name, value in values.items():
            if name not in self.fields:
                raise ValueError(f"{self.name} has no field {name!r}")
            f = self.fields[name]
            number = float_bits(float(value)) if f.kind == "float32" else int(value)
            if not 0 <= number < 1 << f.width:
                raise ValueError(f"{self.name}.{name} is {value}; it must fit {f.width} bits")
            total |= number << f.bit
        return total

    def pack(self, **values: int | float) -> bytes:
        return self.pack_int(**values).to_bytes(self.size_bytes, "little")

    def unpack(self, raw: bytes) -> dict[str, int | float]:
        """Field name → value (floats for 'float32' fields)."""
        if len(raw) < self.size_bytes:
            raise ValueError(f"{self.name} needs {self.size_bytes} bytes, got {len(raw)}")
        total = int.from_bytes(raw[: self.size_bytes], "little")
        out: dict[str, int | float] = {}
        for f in self.fields.values():
            number = total >> f.bit & ((1 << f.width) - 1)
            out[f.name] = bits_float(number) if f.kind == "float32" else number
        return out
