"""hls_py/golden/ternary_matmul/encoding.py against the contract's own definition, code by code."""

from typing import Any

import numpy as np
import pytest

from hls_py.golden.ternary_matmul.encoding import (
    decode_beats,
    decode_tile,
    encode_beats,
    encode_tile,
    engine_codes,
)
from hls_py.golden.ternary_matmul.engine import matmul
from rtl.contract import weight_encodings as contract
from rtl.contract.design_params import DesignParams
from sim_tests.harness.bench import bench_seed

PARAMETER_SETS: list[dict[str, Any]] = [
    dict(tables=20, outputs=5, group=3, encoding="five_bit", ports=4, port_bytes=16),
    dict(tables=26, outputs=4, group=3, encoding="dense", ports=4, port_bytes=16),
    dict(tables=7, outputs=3, group=3, encoding="five_bit", ports=1, port_bytes=16),
    dict(tables=5, outputs=3, group=4, encoding="dense", ports=1, port_bytes=16, max_head_dim=64),
    dict(tables=13, outputs=2, group=2, encoding="dense", ports=2, port_bytes=16, max_head_dim=64),
]
params_of = pytest.mark.parametrize("params", [DesignParams(**p) for p in PARAMETER_SETS], ids=str)


def bit_text(beat: np.ndarray) -> int:
    return int.from_bytes(beat.tobytes(), "little")


def contract_beat(weights: np.ndarray, params: DesignParams) -> int:
    """A beat of weights [Q, T, G], written as the contract's prose says."""
    flat = [int(w) for w in weights.reshape(-1)]
    if params.encoding == contract.DENSE:
        return sum(contract.encode_dense(tuple(flat[n:n + 5])) << 8 * (n // 5) for n in range(0, len(flat), 5))
    return sum(contract.encode_group(tuple(int(w) for w in weights[q, t])) << (q * params.tables + t) * 5
               for q in range(params.outputs) for t in range(params.tables))


@params_of
def test_every_code_at_every_place(params: DesignParams):
    groups = np.array([contract.decode_group(code, params.group)
                       for code in range(1 << params.code_bits)], np.int8)
    for code in range(len(groups)):  # neighbours differ, so that a wrong place shows
        order = (code + np.arange(params.outputs * params.tables)) % len(groups)
        weights = groups[order].reshape(params.outputs, params.tables, params.group)
        beat = encode_beats(weights.reshape(1, -1), params)
        assert bit_text(beat) == contract_beat(weights, params)
        np.testing.assert_array_equal(decode_beats(beat, params), weights.reshape(1, -1))
        expected = [contract.encode_group(tuple(int(w) for w in group)) for group in groups[order]]
        np.testing.assert_array_equal(engine_codes(beat, params).reshape(-1), expected)


@pytest.mark.parametrize("group", [2, 3, 4])
def test_every_dense_byte_and_every_five_bit_code(group: int):
    dense = DesignParams(tables=5, outputs=3, group=group, encoding="dense", ports=1, port_bytes=16, max_head_dim=64)
    used = -(-15 * group // 5)
    beats = np.zeros((256, 16), np.uint8)
    beats[:, :used] = np.arange(256)[:, None]
    expected = np.array([contract.decode_dense(byte) * used for byte in range(256)])[:, :15 * group]
    np.testing.assert_array_equal(decode_beats(beats, dense), expected)
    if group == 3:
        five = DesignParams(tables=7, outputs=3, ports=1, port_bytes=16)
        beats = np.array([list(sum(code << 5 * n for n in range(21)).to_bytes(16, "little")) for code in range(32)])
        expected = np.array([contract.decode_group(code, 3) * 21 for code in range(32)])
        np.testing.assert_array_equal(decode_beats(beats.astype(np.uint8), five), expected)


@params_of
def test_tiles_and_sums(params: DesignParams):
    rng = np.random.default_rng(bench_seed())
    for steps, slices in [(1, 1), (3, 2), (5, 1), (2, 4)]:
        outputs = rng.integers(1, steps * params.outputs + 1)
        inputs = rng.integers((slices - 1) * params.slice_elements + 1, slices * params.slice_elements + 1)
        weights = rng.integers(-1, 2, (outputs, inputs)).astype(np.int8)
        beats = encode_tile(weights, params, steps)
        assert len(beats) == slices * steps * params.beat_bytes
        decoded = decode_tile(beats, params, slices, steps)
        np.testing.assert_array_equal(decoded[:outputs, :inputs], weights)
        assert not decoded[outputs:].any() and not decoded[:, inputs:].any()
        # stream order: slice by slice, step by step, output outermost within a beat
        beat = (slices - 1) * steps + steps - 1
        last = decoded[(steps - 1) * params.outputs:, (slices - 1) * params.slice_elements:]
        one = beats[beat * params.beat_bytes:(beat + 1) * params.beat_bytes]
        grouped = last.reshape(params.outputs, params.tables, params.group)
        assert int.from_bytes(one, "little") == contract_beat(grouped, params)

        activations = rng.choice([-127, 127, 0, 5], (3, inputs)).astype(np.int8)
        sums = matmul(beats, params, slices, steps, activations)
        expected = activations.astype(np.int64) @ weights.T.astype(np.int64)
        np.testing.assert_array_equal(sums[:, :outputs], expected)
        assert sums.dtype == np.int32 and not sums[:, outputs:].any()


def test_refusals():
    params = DesignParams(tables=7, outputs=3, ports=1, port_bytes=16)
    with pytest.raises(ValueError, match="holds 6 outputs"):
        encode_tile(np.zeros((7, 3), np.int8), params, 2)
    with pytest.raises(ValueError, match="-1, 0 or 1"):
        encode_tile(np.full((2, 3), 2, np.int8), params, 2)
    with pytest.raises(ValueError, match="bytes"):
        decode_tile(bytes(17), params, 1, 1)
