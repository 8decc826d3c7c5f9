"""tellme-hls: what it writes, what it finds again, and one clear line for everything that is wrong."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hls_py import cache, design_folder
from hls_py.boards import load_board
from hls_py.cli import main
from hls_py.emit.verilator import write_sources
from hls_py.errors import TellmeError
from hls_py.model_import.config import parse_config
from rtl.contract.design_params import DesignParams
from rtl.contract.image_manifest import ImageManifest
from rtl.streams.shared_module import EmittedDesign
from sim_tests.harness.models import TinyModel

VERILOG = "module tellme(input clk); endmodule\n"


@pytest.fixture(autouse=True)
def quick_verilog(monkeypatch):
    """These tests are about files, not about hardware."""
    monkeypatch.setattr("hls_py.emit.accelerator.emit_accelerator",
                        lambda params: EmittedDesign("tellme", VERILOG, (), True))


@pytest.fixture
def model(tmp_path):
    return TinyModel().write(tmp_path / "model")


def call(capsys, *arguments):
    """Exit status, and what was printed on stdout and stderr."""
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(capsys, *arguments) -> str:
    """The one line with which a command must refuse."""
    status, out, err = call(capsys, *arguments, "--quiet")
    assert status == 1 and out == ""
    assert err.startswith("tellme-hls: error: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def nothing_left(tmp_path: Path, *allowed: str) -> bool:
    return {entry.name for entry in tmp_path.iterdir()} == {"model", *allowed}


# ---- generate and pack --------------------------------------------------------------------------------------------


def test_generate_writes_everything(capsys, tmp_path, model):
    status, out, err = call(capsys, "generate", "--board", "kv260", "--model", model, "-o", tmp_path / "x")
    assert status == 0 and out == "" and "x: tellme.v" in err
    folder = tmp_path / "x"
    assert {p.name for p in folder.iterdir()} == {*design_folder.DESIGN_FILES, *design_folder.IMAGE_FILES}
    params = load_board("kv260").params
    assert design_folder.read_design(folder) == params
    assert json.loads((folder / "board.json").read_text()) == load_board("kv260").resolved()
    manifest = ImageManifest.from_json((folder / "image.json").read_text())
    assert int(manifest.design_hash, 16) == params.design_hash and manifest.vocabulary == 67
    assert (folder / "tellme.v").read_text() == VERILOG
    assert nothing_left(tmp_path, "x")


def test_generate_twice_gives_the_same_bytes(capsys, tmp_path, model):
    for name in ("a", "b", "a"):
        assert call(capsys, "generate", "--model", model, "-o", tmp_path / name, "-q")[0] == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert nothing_left(tmp_path, "a", "b")


def test_design_parameters_can_be_set(capsys, tmp_path, model):
    assert call(capsys, "generate", "--model", model, "-o", tmp_path / "x", "--set", "rows=2",
                "--set", "encoding=dense", "--set", "activations=silu")[0] == 0
    expected = replace(load_board().params, rows=2, encoding="dense", activations=("silu",))
    assert design_folder.read_design(tmp_path / "x") == expected
    for value, message in (("rows", "give PARAMETER=VALUE"), ("row=1", "did you mean rows"),
                           ("rows=0", "it must be 1 … 32")):
        assert message in refused(capsys, "generate", "--model", model, "-o", tmp_path / "y", "--set", value)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_pack_replaces_the_image_only(capsys, tmp_path, model, elsewhere):
    design = tmp_path / "x"
    assert call(capsys, "generate", "--model", model, "-o", design)[0] == 0
    before = {p.name: p.read_bytes() for p in design.iterdir()}
    TinyModel(seed=2, vocabulary=80).write(tmp_path / "model")
    where = ["-o", tmp_path / "y"] if elsewhere else []
    assert call(capsys, "pack", design, "--model", model, *where)[0] == 0
    after = {p.name: p.read_bytes() for p in ((tmp_path / "y") if elsewhere else design).iterdir()}
    changed = {name for name in after if after[name] != before[name]}
    assert changed == set(design_folder.IMAGE_FILES)
    assert set(after) == ({*design_folder.IMAGE_FILES, "design.json"} if elsewhere else set(before))
    if elsewhere:
        assert {p.name: p.read_bytes() for p in design.iterdir()} == before


def test_a_failed_run_leaves_the_old_output(capsys, tmp_path, model):
    design = tmp_path / "x"
    assert call(capsys, "generate", "--model", model, "-o", design)[0] == 0
    before = {p.name: p.read_bytes() for p in design.iterdir()}
    TinyModel(activation="gelu").write(tmp_path / "model")
    assert "hidden_act 'gelu' is not supported" in refused(capsys, "generate", "--model", model, "-o", design)
    assert "hidden_act 'gelu' is not supported" in refused(capsys, "pack", design, "--model", model)
    assert {p.name: p.read_bytes() for p in design.iterdir()} == before
    assert nothing_left(tmp_path, "x")


def test_a_failure_after_packing_leaves_nothing(capsys, tmp_path, model, monkeypatch):
    def fail(params):
        raise OSError(28, "No space left on device", "tellme.v")

    monkeypatch.setattr("hls_py.emit.accelerator.emit_accelerator", fail)
    assert "tellme.v: No space left on device" in refused(capsys, "generate", "--model", model, "-o", tmp_path / "x")
    assert "No space left" in refused(capsys, "prepare", "--model", model, "--cache", tmp_path / "cache")
    assert nothing_left(tmp_path, "cache")
    assert [p.name for p in (tmp_path / "cache" / "designs").iterdir() if not p.name.endswith(".lock")] == []


def test_nobody_elses_folder_is_overwritten(capsys, tmp_path, model):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    assert "holds 'thesis.tex'" in refused(capsys, "generate", "--model", model, "-o", tmp_path / "mine")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(capsys, "generate", "--model", model, "-o", tmp_path / "file")
    assert "holds 'config.json'" in refused(capsys, "generate", "--model", model, "-o", model)
    assert nothing_left(tmp_path, "mine", "file")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "…"


def test_no_design_there(capsys, tmp_path, model):
    for arguments in (("pack", tmp_path, "--model", model), ("simulator", tmp_path)):
        assert "has no design.json; give a folder that `tellme-hls generate` wrote" in refused(capsys, *arguments)
    for text, message in (("{", "can't be read as a design"), ('{"row": 1}', "unknown design parameter 'row'"),
                          ('{"rows": 99}', "it must be 1 … 32"), ("[]", "can't be read as a design")):
        (tmp_path / "design.json").write_text(text)
        assert message in refused(capsys, "simulator", tmp_path)
    (tmp_path / "design.json").write_text(json.dumps(DesignParams().to_dict()))
    assert "has no tellme.vlt" in refused(capsys, "simulator", tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_nothing(capsys, tmp_path, model, monkeypatch, number):
    monkeypatch.setattr("hls_py.emit.accelerator.emit_accelerator", lambda params: os.kill(os.getpid(), number))
    before = signal.getsignal(signal.SIGTERM)
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    try:
        status = call(capsys, "generate", "--model", model, "-o", tmp_path / "x", "-q")[0]
    except SystemExit as stopped:
        status = stopped.code
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert status == 128 + number and nothing_left(tmp_path) and signal.getsignal(signal.SIGTERM) is before


# ---- models that can't be used --------------------------------------------------------------------------------------


def change_config(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def truncate(folder: Path, keep) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:keep(len(raw))])


def drop(name):
    return lambda folder: change_tensors(folder, lambda tensors: tensors.pop(name))


def put(name, make):
    return lambda folder: change_tensors(folder, lambda tensors: tensors.update({name: make(tensors[name])}))


def with_nan(tensor):
    tensor = tensor.copy()
    tensor.reshape(-1)[-1] = np.nan
    return tensor


LAYER = "model.layers.0."

BAD_MODELS = {
    "unknown model type": (lambda f: change_config(f, model_type="mamba"),
                           "model_type 'mamba' is not supported; supported are bitnet, llama"),
    "no model type": (lambda f: change_config(f, model_type=None), "model_type None is not supported"),
    "model type is a list": (lambda f: change_config(f, model_type=["bitnet"]), "['bitnet'] is not supported"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{'a': 1}"), "can't be read as JSON"),
    "config is no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "can't be read as JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "holds no JSON object"),
    "size is text": (lambda f: change_config(f, hidden_size="64"), "hidden_size is '64'; a positive integer"),
    "size is negative": (lambda f: change_config(f, num_hidden_layers=-1), "num_hidden_layers is -1"),
    "no heads": (lambda f: change_config(f, num_attention_heads=0), "num_attention_heads is 0"),
    "heads don't divide": (lambda f: change_config(f, num_key_value_heads=3), "not a multiple of 3 KV heads"),
    "quantisation is text": (lambda f: change_config(f, quantization_config="bitnet"), "quantization_config"),
    "quantisation is another": (lambda f: change_config(f, quantization_config={"quant_method": "gptq"}),
                                "quant_method 'gptq' is not ternary"),
    "tied is text": (lambda f: change_config(f, tie_word_embeddings="no"), "tie_word_embeddings is 'no'; true or"),
    "rope parameters are text": (lambda f: change_config(f, rope_parameters="yarn"), "rope_parameters"),
    "architectures are a number": (lambda f: change_config(f, architectures=5, model_type="llama",
                                                           quantization_config=None), "architectures"),
    "eps is NaN": (lambda f: change_config(f, rms_norm_eps=float("nan")), "rms_norm_eps is nan"),
    "too wide": (lambda f: change_config(f, intermediate_size=100_000), "exceeds the design's"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has neither model.safetensors nor"),
    "weights are a folder": (lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
                             "has neither model.safetensors nor"),
    "index is no JSON": (lambda f: ((f / "model.safetensors").unlink(),
                                    (f / "model.safetensors.index.json").write_text("{")), "can't be read"),
    "index names what isn't there": (
        lambda f: ((f / "model.safetensors").unlink(),
                   (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')),
        "names 'b.safetensors', which is not in"),
    "truncated in the data": (lambda f: truncate(f, lambda size: size - 100), "can't be read"),
    "truncated in the header": (lambda f: truncate(f, lambda size: 100), "can't be read"),
    "truncated in the length": (lambda f: truncate(f, lambda size: 4), "can't be read"),
    "empty file": (lambda f: truncate(f, lambda size: 0), "can't be read"),
    "not safetensors": (lambda f: (f / "model.safetensors").write_bytes(b"PK\x03\x04" * 100), "can't be read"),
    "missing tensor": (drop(LAYER + "mlp.up_proj.weight"), f"tensor {LAYER}mlp.up_proj.weight missing"),
    "missing scale": (drop(LAYER + "mlp.up_proj.weight_scale"), f"tensor {LAYER}mlp.up_proj.weight_scale is missing"),
    "missing embedding": (drop("model.embed_tokens.weight"), "tensor model.embed_tokens.weight missing"),
    "missing norm": (drop("model.norm.weight"), "tensor model.norm.weight missing"),
    "embedding of a wrong shape": (put("model.embed_tokens.weight", lambda t: t[:-1].copy()),
                                   "has shape [66, 64]; the config asks for [67, 64]"),
    "gain of a wrong shape": (put(LAYER + "input_layernorm.weight", lambda t: t[:-1].copy()), "has shape [63]"),
    "matrix of a wrong shape": (put(LAYER + "self_attn.q_proj.weight", lambda t: t[:, :-1].copy()),
                                "has packed shape [16, 63]; the config asks for [16, 64]"),
    "matrix is a vector": (put(LAYER + "self_attn.q_proj.weight", lambda t: t.reshape(-1)), "has packed shape [1024]"),
    "matrix of integers": (put(LAYER + "self_attn.q_proj.weight", lambda t: t.astype(np.int32)),
                           "is int32; a float tensor is needed"),
    "code 3": (put(LAYER + "self_attn.q_proj.weight", lambda t: t | 3), "holds the code 3"),
    "scale is NaN": (put(LAYER + "mlp.down_proj.weight_scale", with_nan), "weight_scale is nan"),
    "scale is zero": (put(LAYER + "mlp.down_proj.weight_scale", lambda t: t * 0), "weight_scale is 0.0"),
    "two scales": (put(LAYER + "mlp.down_proj.weight_scale", lambda t: np.repeat(t, 2)), "has 2 values"),
    "gain is NaN": (put(LAYER + "mlp.ffn_sub_norm.weight", with_nan), "ffn_sub_norm.weight holds NaN or infinity"),
    "final gain is NaN": (put("model.norm.weight", with_nan), "model.norm.weight holds NaN or infinity"),
    "embedding is NaN": (put("model.embed_tokens.weight", with_nan), "embed_tokens.weight holds NaN or infinity"),
    "float matrix is NaN": (put(LAYER + "mlp.up_proj.weight",
                                lambda t: with_nan(np.zeros((96, 64), np.float32))), "up_proj.weight holds NaN"),
    "a bias": (lambda f: change_tensors(f, lambda t: t.update({LAYER + "mlp.up_proj.bias": np.zeros(96, np.float32)})),
               "biases are not supported"),
}


def test_no_value_in_a_config_gives_a_traceback():
    config = TinyModel().config()
    for key in [*config, "rope_parameters", "rope_scaling", "sliding_window", "hidden_act", "attention_bias"]:
        for value in (None, "text", -1, 0, 2.5, 10**30, float("nan"), True, [], ["x"], {}, {"x": 1}):
            with contextlib.suppress(TellmeError):
                parse_config(config | {key: value})


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(capsys, tmp_path, model, case):
    spoil, message = BAD_MODELS[case]
    spoil(model)
    assert message in refused(capsys, "generate", "--model", model, "-o", tmp_path / "x")
    assert nothing_left(tmp_path)
    assert message in refused(capsys, "prepare", "--device", "golden", "--model", model, "--cache", tmp_path / "cache")
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert left == [], "a cache entry must be complete"


def test_other_inputs_that_cannot_be_used(capsys, tmp_path, model):
    assert "is not a folder" in refused(capsys, "generate", "--model", tmp_path / "none", "-o", tmp_path / "x")
    assert "is not a folder" in refused(capsys, "generate", "--model", model / "config.json", "-o", tmp_path / "x")
    assert "did you mean kv260" in refused(capsys, "prepare", "--board", "kv-260", "--model", model)
    board = tmp_path / "model" / "board.yaml"
    board.write_text("clockhz: 5")
    assert "unknown key 'clockhz'" in refused(capsys, "prepare", "--board", board, "--model", model)


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["generate"], ["generate", "--model", "x"], ["pack", "x"],
                                       ["prepare", "--model", "x", "--device", "fpga"], ["simulator"]])
def test_wrong_arguments_are_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and err.count("\n") == 1 and "--help" in err


@pytest.mark.parametrize("arguments", [[], ["generate"], ["pack"], ["simulator"], ["prepare"]])
def test_help(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0 and "usage: tellme-hls" in capsys.readouterr().out


# ---- prepare --------------------------------------------------------------------------------------------------------


def prepare(capsys, model, folder, *more):
    status, out, err = call(capsys, "prepare", "--model", model, "--cache", folder, *more)
    assert status == 0 and out.count("\n") == 1, err
    return json.loads(out), err


def test_prepare_makes_once_and_finds_again(capsys, tmp_path, model):
    first, err = prepare(capsys, model, tmp_path / "cache", "--device", "golden")
    assert "packing" in err and first["design"] is None and first["simulator"] is None
    assert design_folder.read_design(Path(first["image"])) == load_board().params
    assert json.loads(Path(first["board"]).read_text()) == load_board().resolved()
    again, err = prepare(capsys, model, tmp_path / "cache", "--device", "golden")
    assert again == first and err == ""
    other, err = prepare(capsys, model, tmp_path / "cache", "--device", "golden", "--set", "rows=2")
    assert "packing" in err and other["image"] != first["image"] and other["board"] != first["board"]
    TinyModel(seed=3).write(model)
    changed, err = prepare(capsys, model, tmp_path / "cache", "--device", "golden")
    assert "packing" in err and changed["image"] != first["image"] and changed["board"] == first["board"]


def test_changed_sources_make_a_new_image(capsys, tmp_path, model, monkeypatch):
    first, _ = prepare(capsys, model, tmp_path / "cache", "--device", "golden")
    monkeypatch.setattr(cache, "PACKING_SOURCES", ("rtl/contract",))
    other, err = prepare(capsys, model, tmp_path / "cache", "--device", "golden")
    assert "packing" in err and other["image"] != first["image"]


def test_large_models_are_known_by_header_size_and_time(model, monkeypatch):
    monkeypatch.setattr(cache, "WHOLE_FILE_BYTES", 1 << 14)
    assert (model / "model.safetensors").stat().st_size > 1 << 14
    first = cache.model_key(model)
    assert cache.model_key(model) == first
    raw = bytearray((model / "model.safetensors").read_bytes())
    (model / "model.safetensors").write_bytes(raw)  # a new time
    assert cache.model_key(model) != first


def test_a_prepared_model_is_found_in_a_moment(capsys, tmp_path, model):
    """The second call in a fresh process, and without Amaranth or NumPy (what makes it quick)."""
    prepare(capsys, model, tmp_path / "cache", "--device", "golden")
    text = ("import sys; from hls_py.cli import main\n"
            f"assert main(['prepare', '--device', 'golden', '--model', {str(model)!r}, '--cache', "
            f"{str(tmp_path / 'cache')!r}]) == 0\n"
            "assert not {'amaranth', 'numpy'} & set(sys.modules), 'imported'")
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["image"], done.stderr
    assert time.monotonic() - start < 10


# ---- simulator ------------------------------------------------------------------------------------------------------


def test_simulator_is_built_into_the_design(capsys, tmp_path):
    """With the copy machine in place of the accelerator; prepare finds the same library."""
    from rtl.contract.register_map import IDENTITY
    from sim_tests.harness.simulator_library import SimulatorLibrary
    from sim_tests.unit.copy_machine import copy_machine_design, copy_machine_library
    params = DesignParams()
    cached = copy_machine_library(params).parents[1]
    write_sources(copy_machine_design(params), tmp_path)
    (tmp_path / "design.json").write_text(design_folder.design_text(params))
    status, _, err = call(capsys, "simulator", tmp_path, "--cache", cached.parent)
    assert status == 0 and "compiling" not in err and "libtellme_sim.so is ready" in err
    sim = SimulatorLibrary(tmp_path / "libtellme_sim.so", 1 << 16)
    assert sim.read_register(0) == IDENTITY
    sim.close()
    assert {p.name for p in tmp_path.iterdir()} == {"design.json", "tellme.v", "tellme.vlt", "libtellme_sim.so"}


def test_a_simulator_that_cannot_be_built(capsys, tmp_path, model):
    design = tmp_path / "x"
    assert call(capsys, "generate", "--model", model, "-o", design)[0] == 0
    (design / "tellme.v").write_text("module tellme(")
    message = refused(capsys, "simulator", design, "--cache", tmp_path / "cache")
    log = Path(message.split("output is in ")[1].strip())
    assert "building the simulator failed" in message and "%Error" in log.read_text()
    assert not list((tmp_path / "cache").rglob("*.so")) and not (design / "libtellme_sim.so").exists()
