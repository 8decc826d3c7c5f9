"""Ternary tensors of GGUF files as codes: TQ1_0, TQ2_0, and bitnet.cpp's I2_S in its two layouts.

TQ1_0  256 weights in 54 bytes: 48 bytes of 5 base-3 digits, 4 bytes of 4, then the scale as float16. A byte b =
       ⌈256·n/243⌉ holds n = Σ digit_i · 3^(4−i); digit i is ((b·3^i mod 256)·3) >> 8. Digit i of byte j of the first
       32 is weight 32i + j, of the next 16 weight 160 + 16i + j, of the last 4 weight 240 + 4i + j.
TQ2_0  256 weights in 66 bytes: 64 bytes of 4 fields of 2 bits, then the scale as float16. Field i (bits 2i, 2i+1) of
       byte 32h + j is weight 128h + 32i + j.
I2_S   a whole tensor in rows, 4 weights a byte, then one float32 scale and 28 unused bytes. Field i from the top (bits
       7−2i, 6−2i) of byte j of a block is weight S·i + j; a block has 4·S weights: S = 32 in files made on x86, 16 in
       files made on ARM.

A field or digit d means d − 1.
Source: ggml's block_tq1_0 and block_tq2_0 (through the `gguf` package, which the tests compare with); I2_S:
quantize_i2_s in bitnet.cpp's src/ggml-bitnet-mad.cpp, whose branches for x86 and ARM write the two layouts. Published
files (Microsoft's 2B-4T, TII's Falcon-E) have x86's: microsoft/BitNet, issues 585 and 598. Two more layouts exist and
are not read: x86 built without ACT_PARALLEL (a byte holds four rows' weights of one column), and four weights in a row
to a byte, as some other converters write it.
"""

from __future__ import annotations

import numpy as np

BLOCK = 256
TQ1_0_BYTES = 54
TQ2_0_BYTES = 66
I2_S_TRAILER_BYTES = 32
I2_S_LAYOUTS = {"x86": 128, "arm": 64}
"""Layout → weights a block."""


def decode_tq1_0(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 54] → codes int8 [n, 256] in {−1, 0, 1}, scales float16 [n]. Every byte decodes to something."""
    count = len(blocks)

    def digits(first: int, width: int, powers: int) -> np.ndarray:
        wrapped = blocks[:, first:first + width, None] * np.array([3**i for i in range(powers)], np.uint8)
        found = (wrapped.astype(np.uint16) * 3 >> 8).astype(np.int8)
        return found.transpose(0, 2, 1).reshape(count, -1)

    codes = np.concatenate([digits(0, 32, 5), digits(32, 16, 5), digits(48, 4, 4)], axis=1)
    return codes - np.int8(1), _scales(blocks)


def decode_tq2_0(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 66] → codes int8 [n, 256] in {−1, 0, 1, 2}, scales float16 [n]; 2 is no ternary code."""
    halves = blocks[:, :64].reshape(-1, 2, 1, 32)
    fields = halves >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3
    return fields.reshape(-1, BLOCK).view(np.int8) - np.int8(1), _scales(blocks)


def decode_i2_s(raw: np.ndarray, layout: str) -> np.ndarray:
    """uint8 [n/4] → codes int8 [n] in {−1, 0, 1, 2}; 2 is no ternary code. n is a multiple of the layout's block."""
    by_block = raw.reshape(-1, 1, I2_S_LAYOUTS[layout] // 4)
    fields = by_block >> np.array([6, 4, 2, 0], np.uint8).reshape(1, 4, 1) & 3
    return fields.reshape(-1).view(np.int8) - np.int8(1)


def _scales(blocks: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(blocks[:, -2:]).view("<f2")[:, 0]
