"""What golden does beyond the hardware: decisions in float, and a recorder of what each block puts out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hls_py.golden.attention.attention import attend
from hls_py.golden.attention.float_attention import float_attend
from hls_py.golden.head.logits import int8_products
from hls_py.golden.machine.precision import ATTENTION_OPERANDS, PARTS, Precision
from hls_py.golden.machine.recorder import BLOCKS
from hls_py.golden.vector_unit.drain import quantise_heads
from hls_py.model_import.model import Model
from hls_py.packing.image import pack
from host.accelerator import Accelerator
from host.devices.golden import GoldenDevice
from sim_tests.harness.machines import all_logits, small_design
from sim_tests.harness.models import TinyModel

MODEL = TinyModel(layers=2, hidden=72, heads=3, kv_heads=1, head_dim=18, ffn=100, tied=False, seed=5)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> tuple[Model, Path]:
    folder = tmp_path_factory.mktemp("precision")
    model = Model(MODEL.write(folder / "model"))
    pack(model, small_design(), folder / "image", progress=False)
    return model, folder / "image"


def machine(image: Path, precision: Precision | None = None) -> Accelerator:
    return Accelerator(GoldenDevice(small_design(), 16 << 20, precision=precision), image)


def parts_of(names: tuple[str, ...], model: Model) -> Precision:
    return Precision.of_model(names, model.path)


def test_each_decision_alone_and_all(image):
    """Every decision moves the logits, none by much; in float rows don't depend on the cut into passes, either."""
    model, folder = image
    tokens = np.random.default_rng(1).integers(0, MODEL.vocabulary, 140).tolist()
    hardware = all_logits(machine(folder), tokens)
    for names in (*((part,) for part in PARTS), ATTENTION_OPERANDS, PARTS):
        found = all_logits(machine(folder, parts_of(names, model)), tokens)
        error = np.abs(found - hardware).mean() / hardware.std()
        assert 0 < error < 0.12, (names, error)
        uncut = all_logits(machine(folder, parts_of(names, model)), tokens, rows_per_pass=1)
        np.testing.assert_allclose(found, uncut, atol=0.12 * hardware.std())
        assert np.abs(found - uncut).mean() < 0.02 * hardware.std()
    with pytest.raises(ValueError, match="kw: known are queries, kv"):
        parts_of(("kw",), model)


def test_attention_in_float():
    """On dequantised int8 heads it is the hardware's but for 14-bit weights, and nearer with them."""
    rng = np.random.default_rng(2)
    past, rows, heads, kv_heads, d = 200, 3, 4, 2, 20
    arrays = {"query": rng.normal(0, 1, (rows, heads, d)), "key": rng.normal(0, 1, (past + rows, kv_heads, d)),
              "value": rng.normal(0, 1, (past + rows, kv_heads, d)) * np.exp(rng.normal(0, 1, (past + rows, 1, 1)))}
    codes, scales, floats = {}, {}, {}
    for name, values in arrays.items():
        codes[name], bits = quantise_heads(values.astype(np.float32))
        scales[name] = (bits.astype(np.uint32) << 16).view(np.float32)
        floats[name] = codes[name][..., :d] * scales[name][..., None]
    visible = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]], bool)
    factor = np.float32(np.log2(np.e) / np.sqrt(d))
    hardware = attend(codes["query"], scales["query"], codes["key"], scales["key"], codes["value"][..., :d],
                      scales["value"], past, visible, factor)
    errors = [np.abs(float_attend(floats["query"], floats["key"], floats["value"], scales["value"], past, visible,
                                  factor, plain) - hardware).mean() for plain in (True, False)]
    assert errors[0] < 2e-4 and errors[1] < errors[0] / 3, errors
    blind = float_attend(floats["query"], floats["key"][past:], floats["value"][past:], None, 0,
                         np.zeros((3, 3), bool), factor, True)
    assert not blind.any()


def test_recorder(image):
    """The last residual behind the final norm gives the logits; every block of every layer is there."""
    model, folder = image
    accelerator = machine(folder, Precision(head=model.head()))
    assert isinstance(accelerator.device, GoldenDevice)
    recorder = accelerator.device.record()
    tokens = np.random.default_rng(3).integers(0, MODEL.vocabulary, 10).tolist()
    logits = all_logits(accelerator, tokens)
    arrays = recorder.arrays()
    assert set(arrays) == {"0.embedding"} | {f"{layer}.{block}" for layer in (0, 1) for block in BLOCKS}
    np.testing.assert_array_equal(arrays["0.embedding"][:, :72], model.embedding()[tokens])
    assert arrays["1.query"].shape == arrays["1.attention"].shape == (10, 54) and arrays["0.value"].shape == (10, 18)
    last = arrays["1.residual"][:, :72].astype(np.float64)
    normed = last * model.final_gain() / np.sqrt((last**2).mean(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(logits, normed @ model.head().T.astype(np.float64), rtol=1e-4, atol=1e-4)


def test_head_sums_beyond_float32():
    """Sums of int8 products past 2²⁴ are exact."""
    operands = np.full((1, 5000), 127, np.int8)
    codes = np.stack([np.full(5000, 127, np.int8), np.where(np.arange(5000) % 2, 126, -127).astype(np.int8)])
    codes[0, 0] = 126
    expected = operands.astype(np.int64) @ codes.T.astype(np.int64)
    assert expected[0, 0] > 1 << 24 and expected[0, 0] % 2
    np.testing.assert_array_equal(int8_products(codes, operands), expected)
