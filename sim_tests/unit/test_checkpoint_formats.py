"""One model's content in every format it may come in gives the same codes, scales, gains and image."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest

from hls_py.errors import TellmeError
from hls_py.model_import.config import parse_config
from hls_py.model_import.i2s_layout import decide, evidence
from hls_py.model_import.model import Layer, Model
from hls_py.model_import.parts import matrix_shape
from hls_py.model_import.rope import Llama3Scaling, Rope
from hls_py.packing.image import pack
from sim_tests.harness import checkpoints
from sim_tests.harness.checkpoints import (
    FAMILIES,
    HF,
    MATRICES,
    Family,
    Synthetic,
    dequantised,
    gguf_bytes,
    llama3_divisors,
)
from sim_tests.harness.machines import small_design

BITNET = FAMILIES["bitnet-2b"].reduced()
LLAMA = FAMILIES["llama3-8b"].reduced()
DESIGN = small_design(max_head_dim=256)


def same_content(model: Model, content: Synthetic, scale_tolerance: float = 0.0) -> None:
    """Everything a model gives is what the fixture says."""
    f = content.family
    for index in range(f.layers):
        layer = model.layer(index)
        for part in MATRICES:
            found = getattr(layer, part)
            assert np.array_equal(found.codes, content.codes(index, part)), (index, part)
            assert found.scale == pytest.approx(content.scale(index, part), rel=scale_tolerance), (index, part)
        for part in ("input_gain", "attention_gain", "post_attention_gain", "ffn_gain"):
            found = getattr(layer, part)
            assert (found is None) == (part not in content.gains)
            assert found is None or np.array_equal(found, content.gain(index, part)), part
    assert np.array_equal(model.final_gain(), content.gain(-1, "input_gain"))
    assert (model.config.activation, model.config.rope.theta) == (
        {"silu": "silu", "relu2": "relu_squared"}[f.activation], pytest.approx(f.theta, rel=1e-6))


def image(model: Path, folder: Path, **options: str) -> dict[str, bytes]:
    pack(Model(model, **options), DESIGN, folder, progress=False)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(tmp_path, name):
    """As their publishers store them, at reduced dimensions; packed to the end."""
    family = FAMILIES[name].reduced()
    content = Synthetic(family)
    model = Model(content.write_huggingface(tmp_path / "model"))
    assert model.config.head_dim == family.head_dim and model.config.tied_head == family.tied
    if family.storage == "packed":
        same_content(model, content)
    assert image(tmp_path / "model", tmp_path / "image")["stream.bin"]


@pytest.mark.parametrize("linear_class, dtype, shards", [
    *itertools.product(("autobitlinear", "bitlinear"), ("bf16", "fp16", "fp32"), (1,)), ("bitlinear", "bf16", 3)])
def test_packed_folders(tmp_path, linear_class, dtype, shards):
    content = Synthetic(replace(LLAMA, linear_class=linear_class, dtype=dtype))
    model = Model(content.write_huggingface(tmp_path / "model", shards))
    same_content(model, content)
    assert np.array_equal(model.head(), content.head().astype(np.float32))


@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_masters(tmp_path, dtype, old_names):
    """Quantised at load by absmean; the expectation is worked out in float64."""
    content = Synthetic(replace(FAMILIES["1bitllm-large"].reduced(), dtype=dtype, old_names=old_names))
    model = Model(content.write_huggingface(tmp_path / "model"))
    assert model.config.masters and model.has_attention_sub_norm and model.has_ffn_sub_norm
    layer = model.layer(1)
    stored = {"bf16": gguf.quants.BF16, "fp16": None, "fp32": None}[dtype]
    for part in MATRICES:
        weights = content.latent(1, part)
        if stored is not None:
            weights = stored.dequantize(stored.quantize(weights))
        elif dtype == "fp16":
            weights = weights.astype(np.float16).astype(np.float32)
        mean = np.abs(weights.astype(np.float64)).mean()
        scaled = weights / mean
        sure = np.abs(np.abs(scaled) - 0.5) > 1e-5
        found = getattr(layer, part)
        assert found.scale == pytest.approx(mean, rel=1e-6)
        assert np.array_equal(found.codes[sure], np.clip(np.rint(scaled), -1, 1)[sure]) and sure.mean() > 0.999


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_floats_that_are_ternary(tmp_path, dtype):
    content = Synthetic(replace(LLAMA, storage="ternary", dtype=dtype))
    same_content(Model(content.write_huggingface(tmp_path / "model")), content)


@pytest.mark.parametrize("architecture", ["bitnet-b1.58", "bitnet", "bitnet-25", "llama"])
@pytest.mark.parametrize("matrices, rows", [("TQ1_0", "F16"), ("TQ2_0", "Q6_K"), ("I2_S-x86", "BF16"),
                                            ("I2_S-arm", "Q8_0"), ("F32", "F32"), ("F16", "F16"), ("BF16", "BF16")])
def test_gguf(tmp_path, architecture, matrices, rows):
    base = LLAMA if architecture == "llama" else BITNET
    activation = "relu2" if architecture in ("bitnet-b1.58", "bitnet-25") else "silu"
    content = Synthetic(replace(base, activation=activation))
    path = content.write_gguf(tmp_path / "model.gguf", architecture, matrices, rows)
    model = Model(path, matrices[5:] if matrices.startswith("I2_S") else None)
    same_content(model, content)
    assert np.array_equal(model.embedding(), dequantised(content.embedding().astype(np.float32), rows))
    head = content.embedding() if content.family.tied else content.head()
    assert np.array_equal(model.head(), dequantised(head.astype(np.float32), rows))


def test_scales_in_tensors_of_their_own(tmp_path):
    content = Synthetic(BITNET)
    same_content(Model(content.write_gguf(tmp_path / "m.gguf", "bitnet-b1.58", scale_tensors=True)), content)


def test_the_same_image_whatever_the_format(tmp_path):
    content = Synthetic(replace(BITNET, trained=True))
    expected = image(content.write_huggingface(tmp_path / "packed"), tmp_path / "a")
    for n, (matrices, rows) in enumerate([("TQ1_0", "BF16"), ("I2_S-arm", "BF16"), ("I2_S-x86", "BF16")]):
        path = content.write_gguf(tmp_path / f"{n}.gguf", "bitnet-b1.58", matrices, rows)
        assert image(path, tmp_path / f"image{n}") == expected
    ternary = Synthetic(replace(content.family, storage="ternary", model_type="llama"))
    folder = ternary.write_huggingface(tmp_path / "ternary", shards=2)
    assert image(folder, tmp_path / "b") == expected
    llama = Synthetic(replace(content.family, activation="silu", model_type="llama", linear_class="bitlinear"))
    assert image(llama.write_gguf(tmp_path / "l.gguf", "llama", "TQ2_0", "BF16"), tmp_path / "c") == \
        image(llama.write_huggingface(tmp_path / "l"), tmp_path / "d")


def test_i2_s_layouts_are_told_apart_or_asked_for(tmp_path):
    trained, random = Synthetic(replace(BITNET, trained=True)), Synthetic(BITNET)
    for layout in ("x86", "arm"):
        path = trained.write_gguf(tmp_path / f"t-{layout}.gguf", "bitnet-b1.58", f"I2_S-{layout}")
        assert f"({layout} layout)" in Model(path).source.formats["matrices"]
        path = random.write_gguf(tmp_path / f"r-{layout}.gguf", "bitnet-b1.58", f"I2_S-{layout}")
        with pytest.raises(TellmeError, match="say --i2s-layout x86 or --i2s-layout arm"):
            Model(path)
        same_content(Model(path, layout), random)


def four_in_a_row(fields: np.ndarray) -> np.ndarray:
    """A byte holds weights 4j to 4j + 3 of a row."""
    return fields.reshape(-1, 4)


def four_rows(fields: np.ndarray) -> np.ndarray:
    """A byte holds one column's weights of four rows (bitnet.cpp on x86 without ACT_PARALLEL)."""
    return fields.reshape(-1, 4, fields.shape[1]).swapaxes(1, 2).reshape(-1, 4)


@pytest.mark.parametrize("order", [four_in_a_row, four_rows])
def test_i2_s_in_a_layout_that_is_not_read(tmp_path, monkeypatch, order):
    """Refused, though it was trained: neither reading of it looks like one that was."""
    def packed(codes: np.ndarray, scale: float, stride: int) -> bytes:
        fields = order((codes + 1).astype(np.uint8))
        raw = fields[:, 0] << 6 | fields[:, 1] << 4 | fields[:, 2] << 2 | fields[:, 3]
        return raw.tobytes() + struct.pack("<f", scale) + bytes(28)

    monkeypatch.setattr(checkpoints, "i2_s_bytes", packed)
    path = Synthetic(replace(BITNET, trained=True)).write_gguf(tmp_path / "m.gguf", "bitnet-b1.58", "I2_S-x86")
    with pytest.raises(TellmeError, match="say --i2s-layout x86 or --i2s-layout arm"):
        Model(path)


def test_the_demo_models_weights_tell_their_layout(tmp_path):
    """A model that was trained: its layout is found, both ways."""
    demo = Model(Path(__file__).resolve().parents[2] / "examples" / "demo_model")
    c = demo.config

    class Demo(Synthetic):
        def codes(self, layer: int, part: str) -> np.ndarray:
            return layers(layer, part).codes

    cache: dict[int, Layer] = {}

    def layers(index: int, part: str):
        return getattr(cache.setdefault(index, demo.layer(index)), part)

    family = Family(c.hidden_size, c.layers, c.heads, c.kv_heads, c.head_dim, c.intermediate_size, c.vocabulary)
    for layout in ("x86", "arm"):
        path = Demo(family).write_gguf(tmp_path / f"{layout}.gguf", "bitnet", f"I2_S-{layout}")
        assert f"({layout} layout)" in Model(path).source.formats["matrices"]


def test_random_weights_tell_nothing():
    """The check's false alarms: none in forty models of eight layers without structure."""
    c = parse_config(Synthetic(replace(BITNET.reduced(layers=8))).config())
    for seed in range(40):
        rng = np.random.default_rng(seed)
        drawn = {(i, part): rng.integers(-1, 2, matrix_shape(c, part), np.int8) for i in range(8) for part in MATRICES}
        other = {key: rng.permuted(codes, axis=1) for key, codes in drawn.items() if key[0] == 0}
        scores = {"x86": evidence(lambda i, part: drawn[i, part], c),  # noqa: B023
                  "arm": evidence(lambda i, part: other.get((i, part), drawn[i, part]), c)}  # noqa: B023
        assert decide(scores) is None and abs(scores["x86"]) < 6, scores


def test_gguf_files_of_the_packages_own_writer(tmp_path):
    """Our bytes are what `gguf` would have written, and it reads what we write."""
    content = Synthetic(replace(BITNET, layers=1))
    tensors = list(content.gguf_tensors("bitnet-b1.58", "TQ2_0", "F16"))
    metadata = content.gguf_metadata("bitnet-b1.58")
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "bitnet-b1.58")
    writer.add_name("synthetic")
    for key, value in list(metadata.items())[2:]:
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    types = {0: np.float32, 1: np.float16}
    for tensor in tensors:
        raw = np.frombuffer(tensor.data, types.get(tensor.type_id, np.uint8))
        rows = raw.reshape(*tensor.shape[:-1], -1)
        writer.add_tensor(tensor.name, rows, raw_dtype=None if tensor.type_id in types
                          else gguf.GGMLQuantizationType(tensor.type_id))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert (tmp_path / "theirs.gguf").read_bytes() == gguf_bytes(metadata, tensors)
    same_content(Model(tmp_path / "theirs.gguf"), content)
    theirs = {t.name: t for t in gguf.GGUFReader(tmp_path / "theirs.gguf").tensors}
    assert {name: tuple(reversed(t.shape.tolist())) for name, t in theirs.items()} == {t.name: t.shape for t in tensors}


def test_rotary_frequencies(tmp_path):
    family = replace(LLAMA, llama3=True)
    scaled = Rope(family.theta, llama3=Llama3Scaling(8.0, 1.0, 4.0, 64))
    divided = Rope(family.theta, divisors=tuple(llama3_divisors(family).tolist()))
    assert np.allclose(scaled.frequencies(family.head_dim), divided.frequencies(family.head_dim), rtol=1e-5)
    assert not np.allclose(scaled.frequencies(family.head_dim), Rope(family.theta).frequencies(family.head_dim))
    plain = Rope(1e4).frequencies(100)
    assert np.allclose(plain, 1e4 ** (-np.arange(0, 100, 2) / 100), rtol=1e-6)
    assert np.array_equal(Rope(1e4, linear_factor=4.0).frequencies(100), plain / 4)
    content = Synthetic(family)
    folder, path = content.write_huggingface(tmp_path / "m"), content.write_gguf(tmp_path / "m.gguf", "llama", "TQ2_0")
    assert Model(folder).config.rope == scaled and Model(path).config.rope == divided
    newer = content.config()
    newer["rope_parameters"] = {**newer.pop("rope_scaling"), "rope_theta": newer.pop("rope_theta")}
    assert parse_config(newer).rope == scaled
    newer["rope_scaling"] = {"type": "linear", "factor": 2.0, "rope_theta": 7e3}
    assert parse_config(newer).rope == Rope(7e3, linear_factor=2.0)


@pytest.mark.parametrize("model_type, theta", [("bitnet", 5e5), ("llama", 1e4)])
def test_a_config_without_a_rotary_base(model_type, theta):
    """transformers' default of the model type (sim_tests/oracles/test_settings.py asks transformers itself)."""
    config = Synthetic(replace(LLAMA, model_type=model_type)).config()
    del config["rope_theta"]
    assert parse_config(config).rope == Rope(theta)


@pytest.mark.parametrize("metadata, factor", [
    ({"rope.scaling.factor": 2.0}, 2.0), ({"rope.scale_linear": 2.0}, 2.0),
    ({"rope.scaling.type": "none", "rope.scaling.factor": 2.0}, 1.0)])
def test_a_linear_factor_in_a_gguf_file(tmp_path, metadata, factor):
    """As llama.cpp reads it (sim_tests/oracles/test_llama_cpp.py)."""
    more = {f"llama.{key}": value for key, value in metadata.items()}
    path = Synthetic(LLAMA).write_gguf(tmp_path / "m.gguf", "llama", "TQ2_0", metadata=more)
    assert Model(path).config.rope == Rope(LLAMA.theta, linear_factor=factor)


# ---- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_packing_streams(tmp_path, form):
    """The peak is a layer's and some thousand rows': here the embedding alone would be 31 MB as float32."""
    content = Synthetic(replace(BITNET, vocabulary=30_000, layers=3, tied=True))
    model = (content.write_huggingface(tmp_path / "m") if form == "folder"
             else content.write_gguf(tmp_path / "m.gguf", "bitnet-b1.58", "TQ2_0", "Q8_0"))
    opened = Model(model)
    tracemalloc.start()
    pack(opened, DESIGN, tmp_path / "image", progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6, peak


MEASURED = """
import resource, sys, time
from pathlib import Path
from hls_py.boards import load_board
from hls_py.design_folder import write_image
start = time.monotonic()
write_image(load_board("kv260").params, Path(sys.argv[1]), Path(sys.argv[2]), False)
print(time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.full
def test_bitnet_2b_at_full_size(tmp_path):
    """2.1 G ternary weights and an embedding of 128,256 × 2,560: packed in under 5 minutes and 4 GiB."""
    write_full_size(FAMILIES["bitnet-2b"], tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", MEASURED, tmp_path / "model", tmp_path / "image"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    seconds, peak_kib = map(float, done.stdout.split())
    print(f"{seconds:.0f} s, {peak_kib / 2**20:.2f} GiB")
    assert seconds < 300 and peak_kib < 4 * 2**20


def write_full_size(family: Family, folder: Path) -> None:
    """A packed folder with quickly drawn weights, a tensor at a time."""
    content, rng = Synthetic(family), np.random.default_rng(1)
    ternary = np.array([a | b << 2 | c << 4 | d << 6 for a, b, c, d in itertools.product(range(3), repeat=4)], np.uint8)
    tensors: list[tuple[str, str, tuple[int, ...]]] = [
        ("model.embed_tokens.weight", "BF16", (family.vocabulary, family.hidden)), ("model.norm.weight", "BF16",
                                                                                    (family.hidden,))]
    for layer in range(family.layers):
        for part in (*content.gains, *MATRICES):
            name, shape = f"model.layers.{layer}.{HF[part]}.weight", content.shape(part)
            if part in MATRICES:
                tensors += [(name, "U8", (shape[0] // 4, shape[1])), (f"{name}_scale", "BF16", (1,))]
            else:
                tensors.append((name, "BF16", shape[:1]))
    header: dict[str, object] = {}
    offset = 0
    for name, kind, dims in tensors:
        size = int(np.prod(dims)) * (1 if kind == "U8" else 2)
        header[name] = {"dtype": kind, "shape": dims, "data_offsets": [offset, offset + size]}
        offset += size
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content.config()))
    raw = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for _, kind, dims in tensors:
            for first in range(0, dims[0], 8192):
                piece = (min(8192, dims[0] - first), *dims[1:])
                file.write(ternary[rng.integers(0, 81, piece, np.uint8)].tobytes() if kind == "U8" else
                           np.abs(rng.standard_normal(piece, np.float32)).astype(ml_dtypes.bfloat16).tobytes())
