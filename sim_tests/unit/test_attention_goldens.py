"""A group at once with all its KV heads (the machine's golden) is what each KV head gives by itself, tile by tile."""

import numpy as np
import pytest

from hls_py.golden.attention.attention import attend
from hls_py.golden.attention.softmax import RunningOutput, tile_softmax, tile_visibility
from hls_py.kernels.attention import query_scale
from rtl.contract.number_formats import TILE_POSITIONS


@pytest.mark.parametrize("past, rows, branches", [
    (0, 1, False), (0, 5, True), (125, 7, False), (127, 4, True), (300, 3, True)])
def test_goldens_agree(past: int, rows: int, branches: bool):
    rng = np.random.default_rng(past + rows)
    kv_heads, per_kv, dims, positions = 2, 3, 24, past + rows
    heads = kv_heads * per_kv
    queries = rng.integers(-127, 128, (rows, heads, dims))
    keys, values = rng.integers(-127, 128, (2, positions, kv_heads, dims))
    query_scales = rng.uniform(0, 0.05, (rows, heads)).astype(np.float32)
    key_scales, value_scales = rng.uniform(0, 0.05, (2, positions, kv_heads)).astype(np.float32)
    sees = np.tri(rows, dtype=bool)
    if branches:
        sees &= (rng.random((rows, rows)) < 0.5) | np.eye(rows, dtype=bool)
    factor = np.float32(1.4427 / np.sqrt(dims))
    whole = attend(queries, query_scales, keys, key_scales, values, value_scales, past, sees, factor)

    masks = [int((row << np.arange(rows)).sum()) for row in sees]
    for head in range(kv_heads):
        mine = slice(head * per_kv, (head + 1) * per_kv)
        scales = query_scale(query_scales[:, mine].reshape(-1), factor)
        running = RunningOutput(rows * per_kv, dims)
        for tile in range((positions - 1) // TILE_POSITIONS, -1, -1):
            part = slice(tile * TILE_POSITIONS, min(positions, (tile + 1) * TILE_POSITIONS))
            visible = tile_visibility(0, rows, part.start - past, masks, per_kv, part.stop - part.start)
            dots = queries[:, mine].reshape(-1, dims) @ keys[part, head].T
            softmax = tile_softmax(dots, visible, scales, key_scales[part, head], value_scales[part, head])
            running.merge(softmax, softmax.weights @ values[part, head])
        np.testing.assert_array_equal(running.value().reshape(rows, per_kv, dims), whole[:, mine])
