"""Ternary GGUF codes over all byte values: our decoders, the gguf package's, and the formats read in integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from hls_py.model_import.gguf_codes import BLOCK, I2_S_LAYOUTS, decode_i2_s, decode_tq1_0, decode_tq2_0
from sim_tests.harness.checkpoints import i2_s_bytes

SCALE = np.float16(0.75)


def all_bytes(size: int) -> np.ndarray:
    """uint8 [256, size]: in block n every byte of the codes is (n + a shift of its own) mod 256; then the scale."""
    codes = (np.arange(256)[:, None] + 37 * np.arange(size - 2)).astype(np.uint8)
    return np.concatenate([codes, np.broadcast_to(np.frombuffer(SCALE.tobytes(), np.uint8), (256, 2))], axis=1)


def digit(byte: int, i: int) -> int:
    """Digit i of the base-3 fraction byte/256, exactly."""
    scaled = Fraction(byte, 256) * 3**i
    return int((scaled - int(scaled)) * 3)


def tq1_0_by_the_book(block: list[int]) -> list[int]:
    found = [digit(block[j], i) for i in range(5) for j in range(32)]
    found += [digit(block[32 + j], i) for i in range(5) for j in range(16)]
    return [d - 1 for d in found + [digit(block[48 + j], i) for i in range(4) for j in range(4)]]


def tq2_0_by_the_book(block: list[int]) -> list[int]:
    weights = [0] * BLOCK
    for half in range(2):
        for j in range(32):
            for i in range(4):
                weights[128 * half + 32 * i + j] = (int(block[32 * half + j]) // 4**i) % 4 - 1
    return weights


@pytest.mark.parametrize("kind, size, decode, by_the_book", [
    (GGMLQuantizationType.TQ1_0, 54, decode_tq1_0, tq1_0_by_the_book),
    (GGMLQuantizationType.TQ2_0, 66, decode_tq2_0, tq2_0_by_the_book)])
def test_blocks(kind, size, decode, by_the_book):
    blocks = all_bytes(size)
    assert all(len(set(blocks[:, column])) == 256 for column in range(size - 2))
    codes, scales = decode(blocks)
    assert codes.dtype == np.int8 and (scales == SCALE).all()
    theirs = dequantize(blocks, kind).reshape(256, BLOCK)
    assert np.array_equal(codes.astype(np.float32) * np.float32(SCALE), theirs)
    assert np.array_equal(codes[::7], [by_the_book(block) for block in blocks[::7].tolist()])
    assert codes.min() == -1 and codes.max() == (1 if kind is GGMLQuantizationType.TQ1_0 else 2)


@pytest.mark.parametrize("kind, decode", [(GGMLQuantizationType.TQ1_0, decode_tq1_0),
                                          (GGMLQuantizationType.TQ2_0, decode_tq2_0)])
def test_what_the_package_packs_comes_back(kind, decode):
    codes = np.random.default_rng(5).integers(-1, 2, (64, BLOCK), np.int8)
    codes[0], codes[1], codes[2] = 0, 1, -1
    packed = quantize(codes.astype(np.float32) * np.float32(0.5), kind)
    found, scales = decode(packed.reshape(64, -1))
    assert np.array_equal(found[scales != 0], codes[scales != 0]) and scales[0] == 0 and (scales[1:] == 0.5).all()


def i2_s_by_the_book(raw: bytes, block: int) -> list[int]:
    """bitnet.cpp's packing, backwards: weight w of a block is in byte w mod (block/4), shifted by 6 − 2·⌊4w/block⌋."""
    stride = block // 4
    return [(raw[start // 4 + w % stride] >> 6 - 2 * (w // stride) & 3) - 1
            for start in range(0, 4 * len(raw), block) for w in range(block)]


@pytest.mark.parametrize("layout, block", [("x86", 128), ("arm", 64)])
def test_i2_s(layout, block):
    assert I2_S_LAYOUTS[layout] == block
    raw = (np.arange(256)[:, None] + 37 * np.arange(32)).astype(np.uint8).reshape(-1)
    assert all(len(set(raw[column::block // 4])) == 256 for column in range(block // 4))
    codes = decode_i2_s(raw, layout)
    assert codes.tolist() == i2_s_by_the_book(raw.tobytes(), block)
    written = np.random.default_rng(6).integers(-1, 2, (4, 384), np.int8)
    packed = np.frombuffer(i2_s_bytes(written, 1.0, block // 4), np.uint8)[: written.size // 4]
    assert np.array_equal(decode_i2_s(packed, layout).reshape(written.shape), written)
    other = "arm" if layout == "x86" else "x86"
    assert not np.array_equal(decode_i2_s(packed, other).reshape(written.shape), written)
