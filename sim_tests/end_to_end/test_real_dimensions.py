"""bitnet_b1_58-large and BitNet-2B-4T in their own widths, heads and vocabularies, with random weights.

Golden runs two layers end to end, in any cut; the KV260's RTL runs one layer and equals golden bit for bit. Reduced
copies of both run in every `make test`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hls_py.boards import load_board
from host.accelerator import Accelerator
from host.sequences import SequencePool, logits_of
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.machines import all_logits, check_rules, golden_machine, simulated_machine, small_design
from sim_tests.harness.models import TinyModel
from sim_tests.harness.passes import assert_equal

LARGE = TinyModel(hidden=1536, ffn=4096, heads=16, kv_heads=16, head_dim=96, vocabulary=32002, max_positions=256)
TWO_B = TinyModel(hidden=2560, ffn=6912, heads=20, kv_heads=5, head_dim=128, vocabulary=128256, activation="relu2",
                  max_positions=256)
REAL = {"bitnet_b1_58-large": LARGE, "bitnet-2b-4t": TWO_B}
REDUCED = {"bitnet_b1_58-large": replace(LARGE, hidden=192, ffn=512, heads=2, kv_heads=2, vocabulary=330),
           "bitnet-2b-4t": replace(TWO_B, hidden=320, ffn=512, heads=4, kv_heads=1, head_dim=80, vocabulary=261)}
"""Heads of 96 as they are, of 80 for 128: the design of the tests holds attention vectors of 512."""

MEMORY_BYTES = 2 << 30
PROMPT, GENERATED = 11, 3


def generate(machine: Accelerator, vocabulary: int) -> np.ndarray:
    """Logits of a prompt's last position and of the tokens that follow greedily, fed back one by one."""
    prompt = np.random.default_rng(11).integers(0, vocabulary, PROMPT).tolist()
    pool = SequencePool(machine)
    sequence = pool.open()
    out = [logits_of(pool.feed(sequence, prompt, last=RowFlag.LOGITS))]
    for _ in range(GENERATED):
        out.append(logits_of(pool.feed(sequence, [int(out[-1][0].argmax())], last=RowFlag.LOGITS)))
    return np.concatenate(out)


def golden_end_to_end(model: TinyModel, machine: Accelerator) -> None:
    tokens = np.random.default_rng(12).integers(0, model.vocabulary, 12).tolist()
    cut = all_logits(machine, tokens, rows_per_pass=1)
    assert np.isfinite(cut).all() and (cut.std(axis=1) > 0).all()
    assert_equal(all_logits(machine, tokens), cut)
    assert_equal(generate(machine, model.vocabulary), generate(machine, model.vocabulary))


@pytest.mark.parametrize("name", list(REDUCED))
def test_golden_two_layers_reduced(name: str, tmp_path: Path):
    model = replace(REDUCED[name], layers=2)
    golden_end_to_end(model, golden_machine(model.write(tmp_path / "model"), small_design(), tmp_path / "image"))


@pytest.mark.full
@pytest.mark.parametrize("name", list(REAL))
def test_golden_two_layers(name: str, tmp_path: Path):
    model = replace(REAL[name], layers=2)
    golden_end_to_end(model, golden_machine(model.write(tmp_path / "model"), load_board("kv260").params,
                                            tmp_path / "image", MEMORY_BYTES))


@pytest.mark.parametrize("name", list(REDUCED))
def test_rtl_one_layer_reduced(name: str, tmp_path: Path):
    """On the design that `make demo` has compiled already."""
    rtl_equals_golden(REDUCED[name], "simulation", tmp_path, 64 << 20)


@pytest.mark.full
@pytest.mark.parametrize("name", list(REAL))
def test_rtl_one_layer(name: str, tmp_path: Path):
    rtl_equals_golden(REAL[name], "kv260", tmp_path, MEMORY_BYTES)


def rtl_equals_golden(model: TinyModel, board_name: str, folder: Path, memory_bytes: int) -> None:
    path = model.write(folder / "model")
    board = load_board(board_name)
    golden = golden_machine(path, board.params, folder / "golden", memory_bytes)
    expected = generate(golden, model.vocabulary)
    rtl = simulated_machine(path, board, folder / "rtl", memory_bytes)
    assert rtl.max_rows >= 4
    assert_equal(generate(rtl, model.vocabulary), expected)
    check_rules(rtl)
