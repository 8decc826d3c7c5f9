"""Ternary tiles as beats and back, for both storage encodings of rtl/contract/weight_encodings.py.

A tile of [N, K] weights is ``slices·steps`` beats: K slices of T·G weights outer, steps of Q outputs inner. Step i of
slice k holds outputs i·Q … i·Q + Q − 1 at positions k·T·G … of K: output outermost, then K rising. Outputs beyond N and
positions beyond K are zero weights, bits beyond the codes are zero.
"""

from functools import cache

import numpy as np

from rtl.contract import weight_encodings as contract
from rtl.contract.design_params import DesignParams

PER_BYTE = contract.DENSE_WEIGHTS_PER_BYTE


def encode_tile(weights: np.ndarray, params: DesignParams, steps: int) -> bytes:
    """Beats of one tile in stream order; ``weights`` is [N, K] of −1, 0, 1 with N ≤ steps·Q.

    Raises ``ValueError`` when a weight is not ternary or N doesn't fit.
    """
    weights = np.asarray(weights)
    outputs, inputs = weights.shape
    if outputs > steps * params.outputs:
        raise ValueError(f"a tile of {steps} steps holds {steps * params.outputs} outputs, not {outputs}")
    if weights.size and not np.isin(weights, (-1, 0, 1)).all():
        raise ValueError("weights must be -1, 0 or 1")
    slices = max(1, -(-inputs // params.slice_elements))
    padded = np.zeros((steps * params.outputs, slices * params.slice_elements), np.int8)
    padded[:outputs, :inputs] = weights
    by_beat = padded.reshape(steps, params.outputs, slices, params.slice_elements).transpose(2, 0, 1, 3)
    return encode_beats(by_beat.reshape(slices * steps, -1), params).tobytes()


def decode_tile(beats: bytes, params: DesignParams, slices: int, steps: int) -> np.ndarray:
    """Weights [steps·Q, slices·T·G] int8 of one tile, as the engine understands them."""
    raw = np.frombuffer(beats, np.uint8)
    if raw.size != slices * steps * params.beat_bytes:
        raise ValueError(f"a tile of {slices} slices of {steps} steps has {slices * steps * params.beat_bytes} bytes, "
                         f"not {raw.size}")
    weights = decode_beats(raw.reshape(slices * steps, params.beat_bytes), params)
    by_beat = weights.reshape(slices, steps, params.outputs, params.slice_elements)
    return by_beat.transpose(1, 2, 0, 3).reshape(steps * params.outputs, slices * params.slice_elements)


def encode_beats(weights: np.ndarray, params: DesignParams) -> np.ndarray:
    """Beats [n, beat_bytes] uint8 of weights [n, Q·T·G]."""
    count = len(weights)
    beats = np.zeros((count, params.beat_bytes), np.uint8)
    if params.encoding == contract.DENSE:
        padded = np.zeros((count, -(-weights.shape[1] // PER_BYTE), PER_BYTE), np.uint8)
        padded.reshape(count, -1)[:, :weights.shape[1]] = weights.astype(np.uint8)
        digits = padded + np.uint8(1)  # 255 + 1 wraps to 0
        used = digits @ np.array([3**j for j in range(PER_BYTE)], np.uint8)
    else:
        codes = _codes_of(weights.reshape(count, -1, params.group)).astype(np.uint8)
        bits = np.unpackbits(codes[:, :, None], axis=2, count=params.code_bits, bitorder="little")
        used = np.packbits(bits.reshape(count, -1), axis=1, bitorder="little")
    beats[:, :used.shape[1]] = used
    return beats


def decode_beats(beats: np.ndarray, params: DesignParams) -> np.ndarray:
    """Weights [n, Q·T·G] int8 of beats [n, beat_bytes] uint8."""
    count, wanted = len(beats), params.outputs * params.slice_elements
    if params.encoding == contract.DENSE:
        digits = np.take(_dense_bytes(), beats[:, :-(-wanted // PER_BYTE)], axis=0)
        return digits.reshape(count, -1)[:, :wanted]
    codes = _unpack(beats, wanted // params.group, params.code_bits)
    return np.take(_group_codes(params.group), codes, axis=0).reshape(count, wanted)  # indexing takes 3 times as long


def _unpack(beats: np.ndarray, count: int, bits: int) -> np.ndarray:
    """The first ``count`` codes of ``bits`` ≤ 8 bits of each beat, uint8 [n, count]."""
    start = np.arange(count) * bits
    byte, shift = start // 8, (start % 8).astype(np.uint8)
    next_byte = np.minimum(byte + 1, beats.shape[1] - 1)  # of the last code perhaps none, but then it needs none
    return (beats[:, byte] >> shift | beats[:, next_byte] << (8 - shift)) & np.uint8((1 << bits) - 1)


def engine_codes(beats: np.ndarray, params: DesignParams) -> np.ndarray:
    """Engine codes [n, Q, T] that the decoder hands to the lanes for beats [n, beat_bytes]."""
    groups = decode_beats(beats, params).reshape(len(beats), params.outputs, params.tables, params.group)
    return _codes_of(groups)


def _codes_of(groups: np.ndarray) -> np.ndarray:
    """Engine codes […] of weights […, G]."""
    group = groups.shape[-1]
    values = groups.astype(np.int16) @ np.array([3**i for i in range(group)], np.int16)
    return np.where(values < 0, 1 << contract.entry_bits(group), 0) | np.abs(values)


@cache
def _dense_bytes() -> np.ndarray:
    """[256, 5] weights of every byte."""
    return np.array([contract.decode_dense(byte) for byte in range(256)], np.int8)


@cache
def _group_codes(group: int) -> np.ndarray:
    """[codes, G] weights of every engine code."""
    return np.array([contract.decode_group(code, group) for code in range(1 << contract.code_bits(group))], np.int8)
