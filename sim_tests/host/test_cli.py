"""``tellme run``, ``chat`` and ``logits`` on golden: what they print and write, and one line for whatever is wrong.

A few run as processes of their own; most call ``main`` in this process, with the file descriptors captured, since every
start of Python costs.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from host.cli import main
from host.commands import logits as logits_command
from sim_tests.harness.machines import all_logits, golden_machine
from sim_tests.harness.models import TinyModel

SLOW_START = 120.0
TOKENS = [40, 7, 900, 33, 1023, 5, 0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def call(capfd, cache: Path, speaking_model: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: exit status, stdout, stderr (of the processes it starts, too)."""
    def run(command: str, *arguments: object, model: Path = speaking_model) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main([command, "--device", "golden", "--cache", str(cache), "--model", str(model),
                           *map(str, arguments)])
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capfd.readouterr()
        return status, out, err
    return run


@pytest.fixture
def refused(call) -> Callable[..., str]:
    """The one line on stderr with which a command must refuse."""
    def run(*arguments: object, **options: Path) -> str:
        status, _, err = call(*arguments, "--quiet", **options)
        assert status in (1, 2)
        assert_one_line(err)
        return err
    return run


def assert_one_line(err: str) -> None:
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert err.startswith(("tellme: error: ", "tellme-hls: error: ")) and "Traceback" not in err, err


def process(*arguments: object, text: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "host.cli", *map(str, arguments)], input=text.encode(),
                          capture_output=True, timeout=SLOW_START, env={**os.environ, **environment})


# ---- what works -----------------------------------------------------------------------------------------------------


def test_run_as_a_process(cache: Path, speaking_model: Path):
    done = process("run", "--device", "golden", "--cache", cache, "--model", speaking_model,
                   "--prompt", "naïve — 你好", "--max-tokens", 4)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().startswith("naïve — 你好") and done.stdout.endswith(b"\n")
    assert b"tokens in" in done.stderr and b"golden" in done.stderr and b"Traceback" not in done.stderr


def test_a_terminal_without_these_characters(cache: Path, speaking_model: Path):
    done = process("run", "--device", "golden", "--cache", cache, "--model", speaking_model, "--quiet",
                   "--prompt", "你", "--max-tokens", 1, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0 and done.stdout.startswith(b"?") and done.stderr == b""


def test_run_repeats_with_its_seed(call):
    arguments = ("run", "--quiet", "--prompt", "In the", "--max-tokens", 8,
                 "--temperature", 1.5, "--top-k", 0, "--seed")
    first, again, other = (call(*arguments, seed) for seed in (1, 1, 2))
    assert first == again and first[0] == 0 and first[2] == ""
    assert first[1].startswith("In the") and other[1] != first[1]


def test_no_tokens_asked_for(call):
    assert call("run", "--prompt", "In the", "--max-tokens", 0, "--quiet") == (0, "In the\n", "")


def test_chat_keeps_what_was_said(call, monkeypatch):
    """Two turns; then the same first turn gives the same answer, and the second another."""
    def chat(text: str) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        status, out, err = call("chat", "--max-tokens", 5, "--quiet")
        assert status == 0 and err == ""
        return out.split("\n")

    both, alone = chat("It is a truth\nof a wife\n\nnot read\n"), chat("of a wife\n")
    assert len(both) == 3 and both[2] == "" and both[0] and both[1]
    assert chat("It is a truth") == [both[0], ""] and alone[0] != both[1]


def test_chat_refuses_a_line_and_goes_on(call, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("It is\n" + "word " * 200 + "\nof a wife\n"))
    status, out, err = call("chat", "--max-tokens", 3, "--quiet")
    assert status == 1 and len(out.split("\n")) == 3
    assert_one_line(err)
    assert "room for" in err


@pytest.mark.parametrize("shape", [(7,), (1, 7), (2, 3)])
def test_logits(call, tmp_path: Path, speaking_model: Path, shape):
    """The same bits as a machine gives, for every number of rows a pass."""
    from hls_py.boards import load_board
    machine = golden_machine(speaking_model, load_board().params, tmp_path / "image")
    tokens = np.resize(np.array(TOKENS), shape)
    np.save(tmp_path / "ids.npy", tokens)
    for rows in ([], ["--rows-per-pass", 3]):
        output = tmp_path / "logits.npy"
        assert call("logits", "--tokens", tmp_path / "ids.npy", "-o", output, "--quiet", *rows) == (0, "", "")
        found = np.load(output)
        assert found.dtype == np.float32 and found.shape == (*shape, 1024)
        for ids, got in zip(np.atleast_2d(tokens), found.reshape(-1, shape[-1], 1024)):
            np.testing.assert_array_equal(got.view(np.uint32), all_logits(machine, ids.tolist()).view(np.uint32))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ids.npy", "image", "logits.npy"]


# ---- what is refused ------------------------------------------------------------------------------------------------


def changed_model(source: Path, folder: Path, **config: object) -> Path:
    shutil.copytree(source, folder)
    raw = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def test_bad_models(refused, tmp_path: Path, speaking_model: Path):
    run = ("run", "--prompt", "In the")
    assert "is not a folder" in refused(*run, model=tmp_path / "none")
    other = changed_model(speaking_model, tmp_path / "other", model_type="mamba")
    assert "model_type 'mamba' is not supported" in refused(*run, model=other)
    silent = TinyModel().write(tmp_path / "silent")
    assert "has no tokenizer.json" in refused(*run, model=silent)
    stops = changed_model(speaking_model, tmp_path / "stops", eos_token_id={"a": 1})
    assert "eos_token_id is {'a': 1}" in refused(*run, model=stops)
    # The tokenizer knows more tokens than the model.
    shutil.copy(speaking_model / "tokenizer.json", silent)
    assert "is outside the vocabulary of 67" in refused(*run, model=silent)


@pytest.mark.parametrize("arguments, message", [
    (("--prompt", ""), "the prompt is empty"),
    (("--prompt", "\udcff"), "not valid UTF-8"),
    (("--prompt", "word " * 200), "the context of 160 has room for 160; shorten it"),
    (("--prompt", "a", "--context", 161), "this model has 1 … 160"),
    (("--prompt", "a", "--context", 0), "'0' is not a whole number, 1 or more"),
    (("--prompt", "In the beginning", "--context", 2), "the context of 2 has room for 2"),
    (("--prompt", "a", "--max-tokens", -1), "'-1' is not a whole number, 0 or more"),
    (("--prompt", "a", "--max-tokens", "many"), "'many' is not a whole number"),
    (("--prompt", "a", "--temperature", -1), "temperature is -1.0"),
    (("--prompt", "a", "--temperature", "nan"), "temperature is nan"),
    (("--prompt", "a", "--top-p", 0), "top-p is 0.0"),
    (("--prompt", "a", "--top-k", -2), "'-2' is not a whole number"),
    (("--prompt", "a", "--seed", -2), "'-2' is not a whole number"),
    (("--prompt", "a", "--board", "kv-260"), "did you mean kv260"),
    (("--prompt", "a", "--board", "none.yaml"), "none.yaml"),
    (("--prompt", "a", "--memory", "fast"), "has no memory model 'fast'; it has ideal, steady"),
    ((), "--prompt"), (("--prompt", "a", "--colour", "red"), "--colour"),
])
def test_bad_runs(refused, arguments, message):
    assert message in refused("run", *arguments)


def save_text(path: Path) -> None:
    path.write_text("1 2 3")


BAD_TOKENS = {
    "missing": (lambda path: None, "does not exist"),
    "no array": (save_text, "can't be read as .npy"),
    "empty file": (lambda path: path.write_bytes(b""), "can't be read as .npy"),
    "a folder": (lambda path: path.mkdir(), "can't be read as .npy"),
    "cut off": (lambda path: path.write_bytes(numpy_bytes(np.arange(50))[:-9]), "can't be read as .npy"),
    "floats": (lambda path: np.save(path, np.ones(3)), "must hold integers"),
    "objects": (lambda path: np.save(path, np.array([{}], object), allow_pickle=True), "can't be read as .npy"),
    "no tokens": (lambda path: np.save(path, np.zeros(0, np.int64)), "at least one"),
    "one number": (lambda path: np.save(path, np.int64(4)), "must hold integers"),
    "three dimensions": (lambda path: np.save(path, np.ones((1, 1, 1), np.int64)), "must hold integers"),
    "outside the vocabulary": (lambda path: np.save(path, np.array([5, 1024])), "token 1024 is outside the vocabulary"),
    "negative": (lambda path: np.save(path, np.array([5, -1])), "token -1 is outside the vocabulary of 1024"),
    "huge": (lambda path: np.save(path, np.array([2**64 - 1], np.uint64)), "token 18446744073709551615 is outside"),
    "too long": (lambda path: np.save(path, np.ones(161, np.int64)), "161 tokens exceed the context of 160"),
    "second is bad": (lambda path: np.save(path, np.array([[5], [2000]])), "token 2000 is outside the vocabulary"),
}


def numpy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("case", BAD_TOKENS)
def test_bad_token_files(refused, tmp_path: Path, case: str):
    write, message = BAD_TOKENS[case]
    write(tmp_path / "ids.npy")
    assert message in refused("logits", "--tokens", tmp_path / "ids.npy", "-o", tmp_path / "out.npy")
    assert {p.name for p in tmp_path.iterdir()} <= {"ids.npy"}


def test_bad_rows_and_outputs(refused, tmp_path: Path, monkeypatch):
    np.save(tmp_path / "ids.npy", np.array(TOKENS))
    logits = ("logits", "--tokens", tmp_path / "ids.npy", "-o")
    for rows in (0, -1, "all"):
        assert f"'{rows}' is not a whole number, 1 or more" in refused(*logits, tmp_path / "x", "--rows-per-pass", rows)
    assert "rows per pass is 5; this model on this design runs 1 … 4" in refused(*logits, tmp_path / "x",
                                                                                "--rows-per-pass", 5)
    for output in (tmp_path, tmp_path / "none" / "x.npy", tmp_path / "ids.npy" / "x.npy"):
        assert "can't be written; give a file in a folder that exists" in refused(*logits, output)

    def full(file, array):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "old.npy").write_text("as it was")
    monkeypatch.setattr(logits_command.np, "save", full)
    assert "No space left on device" in refused(*logits, tmp_path / "old.npy")
    assert (tmp_path / "old.npy").read_text() == "as it was"
    assert {p.name for p in tmp_path.iterdir()} == {"ids.npy", "old.npy"}


def test_a_damaged_image_in_the_cache(refused, call, tmp_path: Path, speaking_model: Path):
    own = ("run", "--prompt", "a", "--max-tokens", 1, "--cache", tmp_path / "cache")
    assert call(*own)[0] == 0
    image, = (p for p in (tmp_path / "cache" / "images").iterdir() if p.is_dir())
    raw = bytearray((image / "stream.bin").read_bytes())
    raw[-1] ^= 1
    (image / "stream.bin").write_bytes(raw)
    assert "don't have the hash that image.json states" in refused(*own)
    board, = (tmp_path / "cache" / "boards").iterdir()
    board.write_text("{}")
    assert "can't be read as a board" in refused(*own)


def test_refusals_of_a_process(cache: Path, speaking_model: Path, tmp_path: Path):
    target = ("--device", "golden", "--cache", cache, "--model", speaking_model, "--quiet")
    done = process("chat", *target, text="word " * 200)
    assert done.returncode == 1
    assert_one_line(done.stderr.decode())
    done = subprocess.run([sys.executable, "-m", "host.cli", "chat", *map(str, target)], input=b"\xff\xfe\n",
                          capture_output=True, timeout=SLOW_START, env={**os.environ, "PYTHONUTF8": "0",
                                                                        "PYTHONIOENCODING": "utf-8:strict"})
    assert done.returncode == 1
    assert_one_line(done.stderr.decode())


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["run", "--device", "fpga"], ["logits", "--tokens", "x"]])
def test_wrong_arguments_are_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and err.count("\n") == 1 and "--help" in err


@pytest.mark.parametrize("command", ["run", "chat", "logits", "bench"])
def test_help(capsys, command: str):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and f"usage: tellme {command}" in out and f"\n{command}: " not in out


def test_ctrl_c_leaves_a_clean_line(call, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("host.session.Session._feed", interrupted)
    status, out, err = call("run", "--prompt", "In the", "--quiet")
    assert (status, out, err) == (130, "In the\n", "tellme: interrupted\n")


def test_a_reader_that_goes_away(cache: Path, speaking_model: Path):
    command = [sys.executable, "-m", "host.cli", "run", "--device", "golden", "--cache", str(cache), "--model",
               str(speaking_model), "--quiet", "--prompt", "In the", "--max-tokens", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b"" and running.wait(SLOW_START) == 1
