"""Damaged checkpoints: each is refused in one clear line with exit status 1, quickly, in little memory, leaving no
trace.

Damage that changes nothing (a flipped bit in a name that nobody reads) may pass if the very same image comes out; such
cases aren't counted.
"""

from __future__ import annotations

import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hls_py import design_folder
from hls_py.cli import main
from sim_tests.harness.checkpoints import FAMILIES, Synthetic
from sim_tests.harness.damage import Files, damaged
from sim_tests.harness.machines import small_design

SMALL = dict(vocabulary=70, layers=1)
MAX_SECONDS = 20.0
MAX_GROWTH_BYTES = 300 << 20


@pytest.fixture(scope="module")
def design(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("design")
    (folder / "design.json").write_text(design_folder.design_text(small_design(max_head_dim=256)))
    return folder


def folder_files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Files]:
    """Intact ones, in every format."""
    root = tmp_path_factory.mktemp("intact")
    bitnet = replace(FAMILIES["bitnet-2b"].reduced(**SMALL, width=64), head_dim=16, heads=4, kv_heads=2)
    llama = replace(FAMILIES["llama3-8b"].reduced(**SMALL), head_dim=64, heads=4, kv_heads=2)
    masters = replace(FAMILIES["1bitllm-large"].reduced(**SMALL, width=64), head_dim=16, heads=4, kv_heads=4)
    found = {
        "packed": folder_files(Synthetic(bitnet).write_huggingface(root / "packed")),
        "shards": folder_files(Synthetic(masters).write_huggingface(root / "shards", 3)),
    }
    for matrices, rows in (("TQ2_0", "F16"), ("TQ1_0", "Q6_K"), ("I2_S-x86", "Q8_0")):
        path = Synthetic(llama).write_gguf(root / matrices / "model.gguf", "llama", matrices, rows)
        found[matrices] = folder_files(path.parent)
    return found


def run(capsys, design: Path, files: Files, root: Path) -> tuple[int, str, bytes | None]:
    """Exit status, stderr, and the image's bytes if there is one, of packing ``files``; ``root`` is left as it was."""
    model, image = root / "model", root / "image"
    model.mkdir()
    for name, raw in files.items():
        (model / name).write_bytes(raw)
    given = model / "model.gguf" if "model.gguf" in files else model
    status = main(["pack", str(design), "--model", str(given), "-o", str(image), "-q", "--i2s-layout", "x86"])
    captured = capsys.readouterr()
    assert captured.out == ""
    made = None
    if status == 0:
        made = b"".join((image / name).read_bytes() for name in sorted(design_folder.IMAGE_FILES))
        shutil.rmtree(image)
    assert [path.name for path in root.iterdir()] == ["model"], "something is left behind"
    assert folder_files(model) == files, "the checkpoint was changed"
    shutil.rmtree(model)
    return status, captured.err, made


def fuzz(capsys, design: Path, checkpoints: dict[str, Files], tmp_path: Path, wanted: int) -> None:
    whole = {}
    for name, files in checkpoints.items():
        status, err, whole[name] = run(capsys, design, files, tmp_path)
        assert status == 0, err
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    refused = seed = 0
    while refused < wanted:
        name = sorted(checkpoints)[seed % len(checkpoints)]
        case = damaged(checkpoints[name], seed)
        told, seed = f"{name}: {case.name}", seed + 1
        start = time.monotonic()
        try:
            status, err, made = run(capsys, design, case.files, tmp_path)
        except Exception as error:
            raise AssertionError(f"{told}: {error!r}") from error
        assert time.monotonic() - start < MAX_SECONDS, told
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < MAX_GROWTH_BYTES, told
        if status == 0:
            assert made == whole[name], f"{told}: another model came out"
            continue
        assert status == 1 and err.startswith("tellme-hls: error: ") and err.count("\n") == 1, f"{told}: {err}"
        assert 30 < len(err) < 1000 and "Traceback" not in err and "Error(" not in err, f"{told}: {err}"
        refused += 1
    assert seed < 1.2 * wanted + 20, f"{seed - wanted} of {seed} damages changed nothing"


def test_damaged_checkpoints(capsys, tmp_path, design, checkpoints):
    fuzz(capsys, design, checkpoints, tmp_path, 150)


@pytest.mark.full
def test_many_damaged_checkpoints(capsys, tmp_path, design, checkpoints):
    fuzz(capsys, design, checkpoints, tmp_path, 2000)
