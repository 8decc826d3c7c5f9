"""Pack fields into the bits that ports carry, many at a time, and unpack them.

A batch of n payloads is a uint8 array [n, ceil(width / 8)], little-endian, as hardware lays the fields out. What a
shape's fields look like on the NumPy side:

    plain shape, enum      array [n]
    StructLayout           dict of fields
    ArrayLayout of plain   array [n, length]
    ArrayLayout of struct  dict of fields, each with a further axis [n, length, …]

Integers of at most 63 bits come back as int64, of 64 bits as uint64 (signed: int64), wider ones as Python integers.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data

CHUNK_BITS = 32


def width_bytes(shape: Any) -> int:
    """Bytes that a payload of ``shape`` takes in a batch."""
    return -(-Shape.cast(shape).width // 8)


def pack(shape: Any, fields: Any) -> np.ndarray:
    """Batch of payloads from ``fields``; numbers are cut to their field's width, negative ones in two's complement."""
    length = _batch_length(fields)
    batch = np.zeros((length, width_bytes(shape)), np.uint8)
    _pack_into(batch, shape, fields, 0)
    return batch


def unpack(shape: Any, batch: np.ndarray) -> Any:
    """Fields of a batch of payloads."""
    return _unpack_from(np.asarray(batch, np.uint8), shape, 0)


def to_ints(batch: np.ndarray) -> list[int]:
    """One Python integer for each payload, as cocotb's handles take them."""
    return [int.from_bytes(row.tobytes(), "little") for row in batch]


def from_ints(shape: Any, payloads: Iterable[int]) -> np.ndarray:
    """Batch of payloads from integers, as cocotb's handles give them."""
    size = width_bytes(shape)
    raw = b"".join(int(payload).to_bytes(size, "little") for payload in payloads)
    return np.frombuffer(raw, np.uint8).reshape(-1, size)


def _as_layout(shape: Any) -> data.Layout | None:
    """The layout behind ``shape``, or None if it is a plain number."""
    try:
        return data.Layout.cast(shape)
    except TypeError:
        return None


def _batch_length(fields: Any) -> int:
    while isinstance(fields, dict):
        fields = next(iter(fields.values()))
    return len(fields)


def _element(fields: Any, index: int) -> Any:
    if isinstance(fields, dict):
        return {key: _element(value, index) for key, value in fields.items()}
    return np.asarray(fields)[:, index]


def _pack_into(batch: np.ndarray, shape: Any, fields: Any, offset: int) -> None:
    layout = _as_layout(shape)
    if layout is None:
        _put(batch, offset, Shape.cast(shape).width, np.asarray(fields))
        return
    if isinstance(layout, data.ArrayLayout):
        if not isinstance(fields, dict) and np.asarray(fields).shape[1] != layout.length:
            raise ValueError(f"array of {np.asarray(fields).shape[1]} elements for a layout of {layout.length}")
        for index, field in layout:
            _pack_into(batch, field.shape, _element(fields, index), offset + field.offset)
        return
    names = {name for name, _ in layout}
    if set(fields) != names:
        raise ValueError(f"fields {sorted(map(str, fields))} for a layout of {sorted(map(str, names))}")
    for name, field in layout:
        _pack_into(batch, field.shape, fields[name], offset + field.offset)


def _unpack_from(batch: np.ndarray, shape: Any, offset: int) -> Any:
    layout = _as_layout(shape)
    if layout is None:
        plain = Shape.cast(shape)
        return _get(batch, offset, plain.width, plain.signed)
    parts = {key: _unpack_from(batch, field.shape, offset + field.offset) for key, field in layout}
    if isinstance(layout, data.ArrayLayout):
        return _stack(list(parts.values()))
    return parts


def _stack(parts: list) -> Any:
    if parts and isinstance(parts[0], dict):
        return {key: _stack([part[key] for part in parts]) for key in parts[0]}
    return np.stack(parts, axis=1)


def _put(batch: np.ndarray, offset: int, width: int, values: np.ndarray) -> None:
    if values.shape != (len(batch),):
        raise ValueError(f"field has shape {values.shape}; the batch has {len(batch)} payloads")
    if values.dtype != object:
        if values.dtype.kind not in "iub":
            raise TypeError(f"field of type {values.dtype}; view floats as their bits")
        values = values.astype(np.int64 if values.dtype.kind == "i" else np.uint64)
    for low in range(0, width, CHUNK_BITS):
        mask = (1 << min(CHUNK_BITS, width - low)) - 1
        if values.dtype == object:
            chunk = np.array([int(v) >> low & mask for v in values], np.uint64)
        else:
            # a shift by 64 and more is undefined in C; beyond the number lies its sign
            chunk = (values >> values.dtype.type(min(low, 63)) & values.dtype.type(mask)).astype(np.uint64)
            if low >= 64 and values.dtype.kind == "u":
                chunk[:] = 0
        chunk <<= np.uint64((offset + low) % 8)
        first = (offset + low) // 8
        for byte in range(first, min(first + 5, batch.shape[1])):
            batch[:, byte] |= (chunk & np.uint64(0xFF)).astype(np.uint8)
            chunk >>= np.uint64(8)


def _get(batch: np.ndarray, offset: int, width: int, signed: bool) -> np.ndarray:
    chunks = []
    for low in range(0, width, CHUNK_BITS):
        first = (offset + low) // 8
        chunk = np.zeros(len(batch), np.uint64)
        for byte in range(first, min(first + 5, batch.shape[1])):
            chunk |= batch[:, byte].astype(np.uint64) << np.uint64(8 * (byte - first))
        mask = (1 << min(CHUNK_BITS, width - low)) - 1
        chunks.append(chunk >> np.uint64((offset + low) % 8) & np.uint64(mask))
    if width <= 64:
        value = chunks[0] if chunks else np.zeros(len(batch), np.uint64)
        if width > CHUNK_BITS:
            value = value | chunks[1] << np.uint64(CHUNK_BITS)
        if signed:
            unused = np.int64(64 - width)
            return value.view(np.int64) << unused >> unused
        return value if width == 64 else value.astype(np.int64)
    wide = np.array([sum(int(c) << CHUNK_BITS * i for i, c in enumerate(row)) for row in zip(*chunks)], object)
    return np.array([v - (1 << width) if signed and v >> width - 1 else v for v in wide], object)
