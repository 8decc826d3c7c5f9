"""tellme-hls check and inspect: what a model is, what isn't supported, and where two images differ."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hls_py.boards import load_board
from hls_py.cli import main
from hls_py.model_import.config import parse_config
from hls_py.model_import.model import Model
from hls_py.model_import.refusals import Unsupported, tensor_items
from hls_py.packing.compare import Image, first_difference, first_difference_from_source
from hls_py.packing.image import model_shape, pack
from hls_py.packing.traffic import traffic
from rtl.contract.command_words import COMMAND_BYTES
from rtl.contract.stream_records import RECORD_HEADER, record
from sim_tests.harness.checkpoints import FAMILIES, Synthetic, gguf_bytes, gguf_matrix
from sim_tests.harness.machines import small_design
from sim_tests.harness.models import TinyModel

BITNET = Synthetic(FAMILIES["bitnet-2b"].reduced())
LLAMA = Synthetic(FAMILIES["llama3-8b"].reduced())


def call(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and captured.err.count("\n") <= 1
    return status, captured.out, captured.err


# ---- check ----------------------------------------------------------------------------------------------------------


def test_check_tells_what_a_model_is(capsys, tmp_path):
    folder = BITNET.write_huggingface(tmp_path / "model")
    status, out, err = call(capsys, "check", folder)
    assert status == 0 and err == ""
    assert "bitnet, 2 layers" in out and "hidden 256, FFN 512 (relu_squared), 2 heads of 128, 1 KV heads" in out
    assert "sub-norms: attention and FFN" in out and "head: tied" in out and "matrices packed 2-bit" in out
    codes = np.concatenate([BITNET.codes(i, part).reshape(-1) for i in range(2)
                            for part in ("query", "key", "value", "output", "gate", "up", "down")])
    assert f"{codes.size:,} ternary" in out and f"{100 * (codes == 0).mean():.1f} % of them zero" in out
    assert "kv260: yes" in out and "simulation: yes" in out and "tokens/s at most" in out
    assert "zero" not in call(capsys, "check", folder, "--headers")[1]


def test_check_of_a_gguf_file(capsys, tmp_path):
    path = LLAMA.write_gguf(tmp_path / "m.gguf", "llama", "TQ1_0", "Q8_0")
    status, out, _ = call(capsys, "check", path, "--board", "kv260")
    assert status == 0 and "matrices TQ1_0; embedding Q8_0; head Q8_0" in out and "simulation" not in out


def test_check_says_what_a_board_cannot_hold(capsys, tmp_path):
    folder = Synthetic(FAMILIES["falcon3-1b"].reduced()).write_huggingface(tmp_path / "model")
    status, out, _ = call(capsys, "check", folder)
    assert status == 0 and "kv260: no; the model's head_dim (256) exceeds the design's max_head_dim (128)" in out


def test_what_check_says_of_bytes_is_what_packing_writes(tmp_path):
    for n, (model, params) in enumerate([
            (TinyModel(layers=3, hidden=100, head_dim=12, ffn=140, vocabulary=301, sub_norms=False), small_design()),
            (TinyModel(layers=1, tied=False, vocabulary=700), small_design(ports=4, encoding="dense", tables=5)),
            (TinyModel(layers=2, hidden=320, ffn=500, head_dim=30), load_board("kv260").params)]):
        opened = Model(model.write(tmp_path / f"m{n}"))
        found = pack(opened, params, tmp_path / f"i{n}", progress=False)
        t = traffic(model_shape(opened, params))
        assert t.layers_bytes == found.layers_extent.count * params.beat_bytes
        assert t.head_bytes == found.head_extent.count * params.beat_bytes
        assert t.tables_bytes == (tmp_path / f"i{n}" / "tables.bin").stat().st_size
        assert t.kv_bytes_per_token * 128 == found.block_beats * params.beat_bytes


def test_check_names_everything_that_is_wrong(capsys, tmp_path):
    folder = BITNET.write_huggingface(tmp_path / "model")
    config = BITNET.config() | {"attention_bias": True, "hidden_act": "gelu", "rope_scaling": {"type": "yarn"}}
    (folder / "config.json").write_text(json.dumps(config))
    status, out, err = call(capsys, "check", folder)
    assert status == 1 and out.count("not supported: ") == 3 and "can't run: 3 things" in err
    for name in ("attention_bias", "hidden_act 'gelu'", "rotary embedding 'yarn'"):
        assert name in out
    (folder / "config.json").write_text(json.dumps(BITNET.config()))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] |= 3
    tensors["model.layers.1.mlp.ffn_sub_norm.weight"][5] = np.inf
    tensors["model.embed_tokens.weight"][7, 7] = np.nan
    save_file(tensors, folder / "model.safetensors")
    status, out, err = call(capsys, "check", folder)
    assert status == 1 and out.count("not supported: ") == 3
    for name in ("layers.0.mlp.up_proj.weight holds the code 3", "layers.1.mlp.ffn_sub_norm.weight holds NaN",
                 "embed_tokens.weight holds NaN"):
        assert name in out
    assert call(capsys, "check", folder, "--headers")[0] == 0


# ---- refusals by name -----------------------------------------------------------------------------------------------

QUANTISED: dict[str, Any] = {"quant_method": "bitnet", "linear_class": "bitlinear"}
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "Ternary-Bonsai": ({"model_type": "qwen3"}, "QK-norm"),
    "gated DeltaNet": ({"model_type": "qwen3_5"}, "gated DeltaNet"),
    "DeltaNet by its layers": ({"layer_types": ["linear_attention", "full_attention"]}, "'linear_attention'"),
    "MatMul-free": ({"model_type": "hgrn_bit"}, "MatMul-free"),
    "BitNet-embedding": ({"model_type": "gemma3_text"}, "norms after attention and FFN"),
    "BitCPM4": ({"model_type": "minicpm", "scale_emb": 12}, "MiniCPM"),
    "groups": ({"quantization_config": QUANTISED | {"group_size": 128}}, "group-wise scales (group_size 128)"),
    "norm in projections": ({"quantization_config": QUANTISED | {"use_rms_norm": True}}, "norm inside every project"),
    "rotated": ({"online_hadamard": True}, "rotated weights (online_hadamard)"),
    "rotated, by its quantisation": ({"quantization_config": QUANTISED | {"weight_rotation": "hadamard"}},
                                     "rotated weights (weight_rotation)"),
    "QK-norm": ({"use_qk_norm": True}, "QK-norm (use_qk_norm)"),
    "YaRN": ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
    "half-rotary": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    "another quantisation": ({"quantization_config": {"quant_method": "gptq"}}, "quant_method 'gptq'"),
    "a projection left alone": ({"quantization_config": QUANTISED | {"modules_to_not_convert": ["lm_head", "o_proj"]}},
                                "o_proj in full precision"),
    "two-bit weights": ({"weight_bits": 2}, "weights of 2 bits"),
    "linear class": ({"quantization_config": QUANTISED | {"linear_class": "trilinear"}}, "linear_class 'trilinear'"),
    "window": ({"sliding_window": 512}, "sliding_window"),
    "experts": ({"num_local_experts": 8}, "mixture of experts"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_refused_by_name(case):
    changes, name = CONFIGS[case]
    with pytest.raises(Unsupported) as caught:
        parse_config(LLAMA.config() | changes)
    assert any(name in item for item in caught.value.items), caught.value.items


@pytest.mark.parametrize("tensor, reason", [
    ("model.layers.0.self_attn.q_norm.weight", "QK-norm"), ("blk.3.attn_k_norm.weight", "QK-norm"),
    ("model.layers.0.linear_attn.A_log", "DeltaNet"), ("blk.0.ssm_conv1d.weight", "DeltaNet"),
    ("model.layers.0.attn.g_proj.weight", "MatMul-free"), ("x.mlp.up_proj.rms_norm.weight", "inside a projection"),
    ("model.layers.0.self_attn.q_proj.norm.weight", "inside a projection"), ("x.q_proj.bias", "biases"),
    ("model.layers.0.mlp.up_proj.scales", "group-wise"), ("model.layers.0.mlp.experts.3.up_proj.weight", "experts"),
    ("model.layers.0.self_attn.rotation", "rotated"), ("surprise", "not part of any model")])
def test_tensors_refused_by_name(tensor, reason):
    (item,) = tensor_items([tensor])
    assert tensor in item and reason in item


def test_weights_that_are_not_ternary(capsys, tmp_path):
    content = Synthetic(replace(LLAMA.family, storage="ternary"))
    folder = content.write_huggingface(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    for change, message in (
            (lambda t: t.__setitem__((0, slice(None)), t[0] * 2), "more than one magnitude"),
            (lambda t: t.__setitem__(slice(None), np.random.default_rng(1).normal(size=t.shape).astype(t.dtype)),
             "nothing in config.json says that this model is ternary")):
        changed = {name: value.copy() for name, value in tensors.items()}
        change(changed["model.layers.1.mlp.down_proj.weight"])
        save_file(changed, folder / "model.safetensors")
        status, out, _ = call(capsys, "check", folder)
        assert status == 1 and "layers.1.mlp.down_proj.weight is not ternary" in out and message in out


def test_folders_with_something_else_in_them(capsys, tmp_path):
    (tmp_path / "q4.gguf").write_bytes(b"GGUF")
    assert f"give the file {tmp_path / 'q4.gguf'}" in call(capsys, "check", tmp_path)[1]
    (tmp_path / "config.json").write_text(json.dumps(LLAMA.config()))
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    assert "pytorch_model.bin is not read" in call(capsys, "check", tmp_path)[1]


def test_packed_weights_of_unknown_meaning(capsys, tmp_path):
    folder = LLAMA.write_huggingface(tmp_path / "model")
    config = LLAMA.config()
    config.pop("quantization_config")
    (folder / "config.json").write_text(json.dumps(config))
    status, out, _ = call(capsys, "check", folder)
    assert status == 1 and "whether weight_scale multiplies or divides" in out


def test_a_head_that_the_config_ties(capsys, tmp_path):
    """A copy of the embedding passes; anything else contradicts the config."""
    folder = LLAMA.write_huggingface(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({**LLAMA.config(), "tie_word_embeddings": True}))
    status, out, _ = call(capsys, "check", folder)
    assert status == 1 and "lm_head.weight differs from model.embed_tokens.weight (row 0)" in out
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].copy()}, folder / "model.safetensors")
    status, out, _ = call(capsys, "check", folder)
    assert status == 0 and "head: tied" in out


def test_a_bitnet_without_its_sub_norms(capsys, tmp_path):
    """Its class has them always; a checkpoint without is a part of one."""
    folder = BITNET.write_huggingface(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if "sub_norm" not in name}, folder / "model.safetensors")
    status, out, _ = call(capsys, "check", folder)
    assert status == 1 and "tensor model.layers.0.self_attn.attn_sub_norm.weight and 3 more missing" in out
    path = LLAMA.write_gguf(tmp_path / "m.gguf", "bitnet")
    status, out, _ = call(capsys, "check", path)
    assert status == 1 and "tensor blk.0.attn_sub_norm.weight and 3 more missing from the file" in out


@pytest.mark.parametrize("metadata, message", [
    ({"general.architecture": "qwen35"}, "gated DeltaNet"), ({"general.architecture": "qwen3"}, "QK-norm"),
    ({"llama.rope.scaling.type": "yarn"}, "rotary embedding (llama.rope.scaling.type 'yarn')"),
    ({"llama.expert_count": 8}, "mixture of experts"), ({"split.count": 3}, "a model in 3 files"),
    ({"llama.rope.dimension_count": 64}, "llama.rope.dimension_count is 64"),
    ({"llama.vocab_size": 301}, "llama.vocab_size is 301"),
    ({"llama.rope.scaling.attn_factor": 2.0}, "scaled rotary embeddings (llama.rope.scaling.attn_factor 2.0)"),
    ({"llama.attention.causal": False}, "attention to later positions (llama.attention.causal False)"),
    ({"llama.attention.sliding_window": 512}, "sliding window")])
def test_gguf_metadata_refused_by_name(capsys, tmp_path, metadata, message):
    path = LLAMA.write_gguf(tmp_path / "m.gguf", "llama", metadata=metadata)
    status, out, _ = call(capsys, "check", path)
    assert status == 1 and message in out


def changed_gguf(path: Path, name: str, change) -> Path:
    """The LLAMA fixture as TQ2_0, one tensor replaced (or more added) by ``change``."""
    tensors = list(LLAMA.gguf_tensors("llama", "TQ2_0", "F16"))
    place = next(i for i, tensor in enumerate(tensors) if tensor.name == name)
    tensors[place:place + 1] = change(tensors[place])
    path.write_bytes(gguf_bytes(LLAMA.gguf_metadata("llama"), tensors))
    return path


def blocks(tensor) -> np.ndarray:
    return np.frombuffer(tensor.data, np.uint8).reshape(-1, 66).copy()


def with_blocks(tensor, change):
    raw = blocks(tensor)
    change(raw)
    return [replace(tensor, data=raw.tobytes())]


@pytest.mark.parametrize("change, message", [
    *((lambda t, i=i: [replace(t, type_id=i)], message) for i, message in (
        (42, "Q2_0, which two projects store differently"), (142, "PQ2_0, which has a code for +2"),
        (143, "PTQ1_0, which has a scale per 128"), (38, "TL1 of bitnet.cpp"), (39, "TL2 of bitnet.cpp"),
        (77, "of type 77"))),
    (lambda t: [replace(t, type_id=12, data=bytes(144 * len(blocks(t))))], "is Q4_K; a ternary matrix comes as"),
    (lambda t: with_blocks(t, lambda raw: raw.__setitem__((3, slice(64, 66)), 60)), "has 2 different scales"),
    (lambda t: with_blocks(t, lambda raw: raw.__setitem__((3, 7), 255)), "holds the code +2"),
    (lambda t: with_blocks(t, lambda raw: raw.__setitem__((3, slice(64, 66)), 255)), "negative, NaN or infinity"),
    (lambda t: [gguf_matrix(t.name, np.random.default_rng(0).normal(size=t.shape), 1.0, "F16")], "more than one magn"),
    (lambda t: [t, replace(t, name="blk.0.attn_q_norm.weight")], "blk.0.attn_q_norm.weight: QK-norm"),
    (lambda t: [t, replace(t, name="blk.0.attn_q.bias")], "biases are not supported"),
    (lambda t: [t, replace(t, name="blk.2.attn_q.weight")], "more layers than llama.block_count 2"),
    (lambda t: [t, t], "occurs twice"), (lambda t: [], "blk.0.ffn_up.weight missing from the file"),
    (lambda t: [replace(t, shape=(t.shape[1], t.shape[0]))], "has shape [256, 512]; the metadata asks for [512, 256]")])
def test_gguf_tensors_refused_by_name(capsys, tmp_path, change, message):
    path = changed_gguf(tmp_path / "m.gguf", "blk.0.ffn_up.weight", change)
    status, out, _ = call(capsys, "check", path)
    assert status == 1 and message in out


# ---- inspect --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> tuple[Path, Path]:
    """A model folder, and its image."""
    root = tmp_path_factory.mktemp("packed")
    model = TinyModel(layers=2, hidden=100, head_dim=12, ffn=140, vocabulary=301, tied=False).write(root / "model")
    pack(Model(model), small_design(), root / "image", progress=False)
    return model, root / "image"


def rewritten(image: Path, folder: Path, number: int, change) -> Path:
    """A copy of ``image`` with the payload of one record changed, its CRC right."""
    shutil.copytree(image, folder)
    beat, parts = small_design().beat_bytes, []
    for n, found in enumerate(Image(image).records()):
        raw = found.raw
        if n == number:
            payload = bytearray(raw[beat:])
            change(payload)
            h = found.header
            raw = record(h["destination"], bytes(payload), h["sequence"], beat, h["flags"])  # type: ignore[arg-type]
        parts.append(raw)
    (folder / "stream.bin").write_bytes(b"".join(parts))
    return folder


def test_inspect_describes_an_image(capsys, packed):
    status, out, _ = call(capsys, "inspect", packed[1])
    assert status == 0 and "2 layers, vocabulary 301" in out and "CODES: " in out and "content hash: " in out


def test_inspect_finds_no_difference_where_there_is_none(capsys, tmp_path, packed):
    model, image = packed
    shutil.copytree(image, tmp_path / "copy")
    for other in (tmp_path / "copy", model):
        status, out, _ = call(capsys, "inspect", image, other)
        assert status == 0 and "are the same" in out


def test_inspect_names_the_weight(capsys, tmp_path, packed):
    """Each matrix of the last layer: change one weight in the model, and its place is named."""
    model, image = packed
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output", "gate_proj": "gate",
             "up_proj": "up", "down_proj": "down"}
    for name, part in names.items():
        folder = Path(shutil.copytree(model, tmp_path / name))
        tensors = load_file(folder / "model.safetensors")
        full = f"model.layers.1.{'self_attn' if name[1] == '_' else 'mlp'}.{name}.weight"
        tensors[full][0, 3] ^= 1 if tensors[full][0, 3] & 3 != 2 else 2  # output 0, input 3: −1 ↔ 0 or +1 → −1
        save_file(tensors, folder / "model.safetensors")
        status, _, err = call(capsys, "inspect", image, folder)
        assert status == 1 and f"layer 1, {part}: output 0, input 3 " in err and "1 weights of this tile" in err
        pack(Model(folder), small_design(), tmp_path / f"{name}-image", progress=False)
        again = call(capsys, "inspect", image, tmp_path / f"{name}-image")
        assert again[2].split(" differ in their ")[1] == err.split(" differ in their ")[1]


def test_inspect_names_gains_head_and_tables(tmp_path, packed):
    model, image = packed
    first = Image(image)
    kinds = [RECORD_HEADER.unpack(r.raw[:16])["destination"] for r in first.records()]
    for kind, what in ((1, "(GAINS): value 5"), (2, "(HEAD_SCALES): value 5"), (3, "(HEAD_ROWS): byte 21")):
        number = kinds.index(kind)
        other = rewritten(image, tmp_path / f"k{kind}", number,
                          lambda payload, at=21: payload.__setitem__(at, payload[at] ^ 64))
        assert f"record {number} {what}" in str(first_difference(first, Image(other)))
        assert f"record {number} {what}" in str(first_difference_from_source(Image(other), Model(model)))
    for token, expected in ((0, "embedding of token 0, byte 9"), (300, "embedding of token 300, byte 9")):
        folder = Path(shutil.copytree(image, tmp_path / f"t{token}"))
        raw = bytearray((folder / "tables.bin").read_bytes())
        raw[token * 224 + 9] ^= 1
        (folder / "tables.bin").write_bytes(raw)
        assert expected in str(first_difference(first, Image(folder)))
        assert expected in str(first_difference_from_source(Image(folder), Model(model)))
    folder = Path(shutil.copytree(image, tmp_path / "rotary"))
    raw = bytearray((folder / "tables.bin").read_bytes())
    raw[-64 + 3] ^= 1
    (folder / "tables.bin").write_bytes(raw)
    assert "rotary row of position 511, byte 3" in str(first_difference(first, Image(folder)))


def test_inspect_names_commands_manifests_and_designs(tmp_path, packed):
    model, image = packed
    first = Image(image)
    raw = bytearray((image / "program.bin").read_bytes())
    folder = Path(shutil.copytree(image, tmp_path / "program"))
    raw[5 * COMMAND_BYTES + 8] ^= 1
    (folder / "program.bin").write_bytes(raw)
    assert "command 5 (" in str(first_difference(first, Image(folder)))
    pack(Model(TinyModel(layers=1, hidden=100, head_dim=12, ffn=140, vocabulary=301, tied=False).write(tmp_path / "m")),
         small_design(), tmp_path / "shorter", progress=False)
    assert "manifests: " in str(first_difference(first, Image(tmp_path / "shorter")))
    pack(Model(model), small_design(rows=2), tmp_path / "rows", progress=False)
    assert first_difference(first, Image(tmp_path / "rows")) == "designs: rows 4 against 2"


@pytest.mark.parametrize("spoil, message", [
    (lambda f: (f / "stream.bin").write_bytes((f / "stream.bin").read_bytes()[:-40]), "is damaged (no header there)"),
    (lambda f: (f / "stream.bin").write_bytes(b"\1" * 320), "record 0 of the stream is damaged"),
    (lambda f: (f / "stream.bin").write_bytes((f / "stream.bin").read_bytes()[:-1] + b"\x77"), "its CRC is wrong"),
    (lambda f: (f / "program.bin").write_bytes(b"\xff" * 64), "is no image"),
    (lambda f: (f / "image.json").write_text("{}"), "is no image"),
    (lambda f: (f / "tables.bin").unlink(), "tables.bin"),
    (lambda f: (f / "design.json").unlink(), "has no design.json")])
def test_inspect_of_damaged_images(capsys, tmp_path, packed, spoil, message):
    folder = Path(shutil.copytree(packed[1], tmp_path / "image"))
    spoil(folder)
    status, _, err = call(capsys, "inspect", folder)
    assert status == 1 and message in err
