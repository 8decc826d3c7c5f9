"""sim_tests/harness/payload.py against Amaranth's own constants."""

import numpy as np
import pytest
from amaranth.hdl import Const, Shape, signed, unsigned
from amaranth.lib import data

from sim_tests.harness.payload import from_ints, pack, to_ints, unpack

PAIR = data.StructLayout({"a": 5, "b": signed(7)})
SHAPES = [unsigned(1), signed(8), unsigned(33), signed(64), unsigned(64), unsigned(100), signed(130), PAIR,
          data.ArrayLayout(signed(9), 7), data.ArrayLayout(PAIR, 3),
          data.StructLayout({"head": 3, "many": data.ArrayLayout(PAIR, 5), "word": 61, "wide": signed(70), "end": 1}),
          data.ArrayLayout(data.ArrayLayout(3, 4), 5),
          data.FlexibleLayout(20, {"x": data.Field(6, 3), "y": data.Field(signed(5), 14)})]


def random_value(shape, rng):
    """A value of ``shape`` as Amaranth's Const takes it, extremes common."""
    if isinstance(shape, data.ArrayLayout):
        return [random_value(shape.elem_shape, rng) for _ in range(shape.length)]
    if isinstance(shape, data.Layout):
        return {key: random_value(field.shape, rng) for key, field in shape}
    plain = Shape.cast(shape)
    low = -(1 << plain.width - 1) if plain.signed else 0
    high = low + (1 << plain.width) - 1
    return rng.choice([low, high, 0, low + int.from_bytes(rng.bytes(20), "little") % (1 << plain.width)])


def columns(values, shape):
    """A list of values as one value of arrays."""
    if isinstance(shape, data.ArrayLayout):
        parts = [columns([v[i] for v in values], shape.elem_shape) for i in range(shape.length)]
        return stacked(parts)
    if isinstance(shape, data.Layout):
        return {key: columns([v[key] for v in values], field.shape) for key, field in shape}
    return np.array(values, object)


def stacked(parts):
    if isinstance(parts[0], dict):
        return {key: stacked([p[key] for p in parts]) for key in parts[0]}
    return np.stack(parts, axis=1)


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return np.array_equal(a.astype(object), b.astype(object))


class Rng:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def choice(self, values):
        return values[self.rng.integers(len(values))]

    def bytes(self, count):
        return self.rng.bytes(count)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_amaranth(shape):
    rng = Rng(1)
    width = Shape.cast(shape).width
    values = [random_value(shape, rng) for _ in range(40)]
    constants = [(shape.const(v).as_value() if isinstance(shape, data.Layout) else Const(v, shape)).value
                 for v in values]
    batch = pack(shape, columns(values, shape))
    assert batch.shape == (40, -(-width // 8))
    assert to_ints(batch) == [int(c) & (1 << width) - 1 for c in constants]
    assert np.array_equal(from_ints(shape, to_ints(batch)), batch)
    fields = unpack(shape, batch)
    assert equal(fields, columns(values, shape))
    assert np.array_equal(pack(shape, fields), batch), "unpacked fields pack again"


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="fields"):
        pack(PAIR, {"a": np.zeros(3, int)})
    with pytest.raises(TypeError, match="float"):
        pack(unsigned(32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="elements"):
        pack(data.ArrayLayout(4, 3), np.zeros((2, 4), int))
