"""A GGUF file: metadata and tensor table, through the `gguf` package's reader where that can read them.

What the package lacks and is done here: tensor types of other projects (its reader stops at them), arrays as plain
lists (it makes some objects of each of 100,000 tokens), and refusing counts and lengths that the file can't hold.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, ReaderField
from gguf.quants import dequantize

from hls_py.errors import TellmeError
from hls_py.model_import.gguf_codes import I2_S_TRAILER_BYTES

I2_S = 36
FOREIGN_TYPES = {
    31: "Q4_0_4_4 (removed from GGUF)", 32: "Q4_0_4_8 (removed from GGUF)", 33: "Q4_0_8_8 (removed from GGUF)",
    I2_S: "I2_S", 37: "IQ4_NL_4_8 (removed from GGUF)", 38: "IQ4_NL_8_8 (removed from GGUF), or TL1 of bitnet.cpp",
    39: "MXFP4, or TL2 of bitnet.cpp",
    42: "Q2_0, which two projects store differently (groups of 64 or of 128 weights, a scale each)",
    142: "PQ2_0, which has a code for +2 and so isn't ternary", 143: "PTQ1_0, which has a scale per 128 weights",
}
"""Type ids whose meaning isn't ggml's alone."""
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 40
MAX_NUMBERS = 1 << 24
"""Of an array in the metadata: a damaged count must not turn a model's weights into Python integers."""


@dataclass(frozen=True)
class GgufTensor:
    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as NumPy has it."""
    type_id: int
    offset: int
    """From the start of the file."""
    size_bytes: int
    """0 where the type's size isn't known."""

    @property
    def type_name(self) -> str:
        if self.type_id in FOREIGN_TYPES:
            return FOREIGN_TYPES[self.type_id]
        return _known_type(self.type_id) or f"type {self.type_id}"

    @property
    def elements(self) -> int:
        return int(np.prod([int(n) for n in self.shape], dtype=object)) if self.shape else 1


class GgufFile:
    """Raises :class:`TellmeError` when ``path`` is no GGUF file, or one that contradicts itself."""

    def __init__(self, path: Path):
        self.path = path
        try:
            reader = _Reader(path)
        except OSError as error:
            raise TellmeError(f"{path} can't be read: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise TellmeError(f"{path} can't be read as GGUF (a name in it is no UTF-8); download it again") from None
        except (ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError, struct.error) as error:
            text = " ".join(str(error.args[0] if error.args else error).split())
            raise TellmeError(f"{path} can't be read as GGUF ({text}); download it again") from None
        self.metadata: dict[str, Any] = reader.values
        self.tensors: dict[str, GgufTensor] = {}
        self._file_bytes = len(reader.data)
        self._place(reader)

    def _place(self, reader: _Reader) -> None:
        """Tensors lie behind one another in the table's order, each aligned: anything else is damage."""
        expected: int | None = 0
        for name, shape, type_id, offset in reader.table:
            if name in self.tensors:
                raise TellmeError(f"{self.path}: tensor {name} occurs twice")
            size = _size_bytes(name, shape, type_id)
            aligned = offset % reader.alignment == 0
            if not aligned or (expected is not None and offset != expected):
                raise TellmeError(f"{self.path}: tensor {name} lies at {offset}, where another one is or should be "
                                  f"({'at ' + str(expected) if aligned else 'not aligned'}); download it again")
            tensor = GgufTensor(name, shape, type_id, reader.data_offset + offset, size or 0)
            if tensor.offset + tensor.size_bytes > self._file_bytes:
                raise TellmeError(f"{self.path}: the file ends within tensor {name}; download it again")
            self.tensors[name] = tensor
            expected = None if size is None else -(-(offset + size) // reader.alignment) * reader.alignment
        if expected is not None and self._file_bytes > reader.data_offset + expected:
            more = self._file_bytes - reader.data_offset - expected
            raise TellmeError(f"{self.path} has {more} bytes behind its last tensor; download it again")

    def raw(self, tensor: GgufTensor, first: int = 0, size: int | None = None) -> np.ndarray:
        """uint8 bytes of a tensor, from byte ``first``."""
        size = tensor.size_bytes - first if size is None else size
        try:
            found = np.fromfile(self.path, np.uint8, size, offset=tensor.offset + first)
        except OSError as error:
            raise TellmeError(f"{self.path} can't be read: {error.strerror or error}") from None
        if len(found) != size:
            raise TellmeError(f"{self.path}: the file ends within tensor {tensor.name}; download it again")
        return found

    def rows(self, tensor: GgufTensor, first: int, last: int) -> np.ndarray:
        """float32 rows ``first`` … ``last − 1`` of a tensor of a type that the gguf package dequantises."""
        kind = GGMLQuantizationType(tensor.type_id)
        row_bytes = tensor.size_bytes // (tensor.elements // tensor.shape[-1])
        raw = self.raw(tensor, first * row_bytes, (last - first) * row_bytes).reshape(last - first, row_bytes)
        if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            raw = raw.view("<f4" if kind is GGMLQuantizationType.F32 else "<f2")
        try:
            with np.errstate(all="ignore"):  # a damaged scale may be anything
                values = np.asarray(dequantize(raw, kind), np.float32)
        except NotImplementedError:
            raise TellmeError(f"tensor {tensor.name} is {kind.name}, which can't be read") from None
        if not np.isfinite(values).all():
            raise TellmeError(f"tensor {tensor.name} holds NaN or infinity")
        return values

    def whole(self, tensor: GgufTensor) -> np.ndarray:
        """float32, in the tensor's shape."""
        count = tensor.elements // tensor.shape[-1] if tensor.shape else 1
        return self.rows(tensor, 0, count).reshape(tensor.shape)


def is_readable(type_id: int) -> bool:
    """Whether the gguf package knows the type at all."""
    return type_id not in FOREIGN_TYPES and _known_type(type_id) is not None


def _known_type(type_id: int) -> str | None:
    try:
        return GGMLQuantizationType(type_id).name
    except ValueError:
        return None


def _size_bytes(name: str, shape: tuple[int, ...], type_id: int) -> int | None:
    """None for a type whose size isn't known."""
    if not all(shape) or np.prod([float(n) for n in shape]) > MAX_ELEMENTS:
        raise TellmeError(f"tensor {name} has the impossible shape {list(shape)}")
    elements = int(np.prod(shape, dtype=np.int64)) if shape else 1
    if type_id == I2_S:
        if elements % 4:
            raise TellmeError(f"tensor {name} of {elements} weights can't be I2_S, which has 4 a byte")
        return elements // 4 + I2_S_TRAILER_BYTES
    if not is_readable(type_id):
        return None
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(type_id)]
    if (shape[-1] if shape else 1) % block:
        raise TellmeError(f"tensor {name} has rows of {shape[-1] if shape else 1} weights, {_known_type(type_id)} has "
                          f"blocks of {block}")
    return elements // block * size


class _Reader(GGUFReader):
    """``values``: metadata as plain Python values; ``table``: (name, shape, type id, offset) of every tensor."""

    def __init__(self, path: Path):
        self.values: dict[str, Any] = {}
        self.table: list[tuple[str, tuple[int, ...], int, int]] = []
        super().__init__(path)

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> np.ndarray:
        size = int(count) * np.dtype(dtype).itemsize
        if not 0 <= size <= len(self.data) - offset:
            raise ValueError(f"it ends at byte {len(self.data)}, within what its header promises")
        return super()._get(offset, dtype, count, override_order)

    def _build_fields(self, offs: int, count: Any) -> int:
        if self.byte_order != "I":
            raise ValueError("it is for big-endian machines")
        for _ in range(int(count)):
            name, offs = self._text(offs)
            kind = int(self._get(offs, np.uint32)[0])
            start, offs = offs, offs + 4
            value, offs = self._value(kind, offs)
            if name in self.values:
                raise ValueError(f"key {name} occurs twice")
            self.values[name] = value
            if name == "general.alignment":  # the package takes it from a field of its own
                self._push_field(ReaderField(start, name, [np.array([value], np.uint32)], [0], [GGUFValueType(kind)]))
        return offs

    def _text(self, offs: int) -> tuple[str, int]:
        size = int(self._get(offs, np.uint64)[0])
        return str(bytes(self._get(offs + 8, np.uint8, size)), "utf-8", "surrogateescape"), offs + 8 + size

    def _value(self, kind: int, offs: int) -> tuple[Any, int]:
        known = GGUFValueType(kind)
        if known is GGUFValueType.STRING:
            return self._text(offs)
        if known is not GGUFValueType.ARRAY:
            found = self._get(offs, self.gguf_scalar_to_np[known])
            return found[0].item(), offs + found.nbytes
        inner, count = int(self._get(offs, np.uint32)[0]), int(self._get(offs + 4, np.uint64)[0])
        offs += 12
        if GGUFValueType(inner) is GGUFValueType.STRING:
            return self._texts(offs, count)
        if GGUFValueType(inner) is GGUFValueType.ARRAY:
            values = []
            for _ in range(count):
                value, offs = self._value(inner, offs)
                values.append(value)
            return values, offs
        if count > MAX_NUMBERS:
            raise ValueError(f"it has an array of {count} numbers in its metadata")
        numbers = self._get(offs, self.gguf_scalar_to_np[GGUFValueType(inner)], count)
        return numbers.tolist(), offs + numbers.nbytes

    def _texts(self, offs: int, count: int) -> tuple[list[str], int]:
        if count * 8 > len(self.data) - offs:
            raise ValueError(f"it ends at byte {len(self.data)}, within an array of {count} texts")
        data = memoryview(self.data)  # type: ignore[arg-type]
        texts = []
        for _ in range(count):
            start = offs + 8
            offs = start + int.from_bytes(data[offs:start], "little")
            if offs > len(data):
                raise ValueError(f"it ends at byte {len(data)}, within a text")
            texts.append(str(data[start:offs], "utf-8", "surrogateescape"))
        return texts, offs

    def _get_tensor_info_field(self, orig_offs: int) -> ReaderField:
        count_at = orig_offs + 8 + int(self._get(orig_offs, np.uint64)[0])
        if int(self._get(count_at, np.uint32)[0]) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor has more than {MAX_DIMENSIONS} dimensions")
        return super()._get_tensor_info_field(orig_offs)

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        for field in fields:
            _, _, _, dims, raw_type, offset = field.parts
            shape = tuple(int(n) for n in reversed(dims.tolist()))
            self.table.append((field.name, shape, int(raw_type[0]), int(offset[0])))
