"""A row's bits depend only on its own history: golden under random cuts, batches, drafts and rubbish in unused memory.

Every case is held, bit for bit, against an uncut run of one row a pass on a design with P = 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from hls_py.golden.machine import machine as machine_module
from host.accelerator import Accelerator, Group, Row
from host.sequences import SequencePool, logits_of
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.machines import golden_machine, small_design
from sim_tests.harness.models import TinyModel
from sim_tests.harness.passes import LENGTHS, Histories, fill_with_nan, run_case, uncut

MODELS = {
    "grouped": TinyModel(),
    "no_sub_norms": TinyModel(hidden=72, heads=3, kv_heads=3, head_dim=18, ffn=100, sub_norms=False, activation="relu2",
                              tied=False, seed=2),
}
CASES_PER_SETTING = 52
"""2 models × (P = 4, P = 16) × 52 = 208 cases."""


@dataclass
class Stage:
    """A model's histories, and machines by P."""

    histories: Histories
    machines: dict[int, Accelerator] = field(default_factory=dict)


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, Stage]:
    out = {}
    for name, model in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        model.write(folder / "model")
        stage = Stage(uncut(model, folder))
        for rows in (4, 16):
            design = small_design(rows=rows, row_vectors=4 if rows == 4 else 6)
            stage.machines[rows] = golden_machine(folder / "model", design, folder / f"image{rows}")
        out[name] = stage
    return out


@pytest.mark.parametrize("rows", [4, 16])
@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("part", range(4))
def test_any_cut_any_company(stages, model: str, rows: int, part: int):
    size = CASES_PER_SETTING // 4
    for seed in range(part * size, (part + 1) * size):
        run_case(stages[model].machines[rows], stages[model].histories, seed)


def test_drafts_accepted_in_part(stages):
    """Four drafted tokens of which two are right: the accepted rows' logits are those of the uncut run."""
    stage = stages["grouped"]
    machine = stage.machines[4]
    fill_with_nan(machine)
    pool = SequencePool(machine)
    text, expected = stage.histories.texts[0], stage.histories.expected[0]
    for start in (0, 63, 126):
        sequence = pool.open()
        if start:
            pool.feed(sequence, text[:start])
        wrong = [(t + 1) % machine.manifest.vocabulary for t in text[start + 2:start + 4]]
        rows = pool.feed(sequence, [*text[start:start + 2], *wrong], every=RowFlag.LOGITS)
        for i in range(2):
            np.testing.assert_array_equal(rows[i].logits, expected[start + i])
        pool.rewind(sequence, start + 2)
        rows = pool.feed(sequence, text[start + 2:start + 8], every=RowFlag.LOGITS)
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(row.logits, expected[start + 2 + i])
        pool.close(sequence)


def test_branching_drafts(stages):
    """Two drafts for the same position in one pass, each blind to the other, give what each gives alone."""
    stage = stages["grouped"]
    machine = stage.machines[4]
    pool = SequencePool(machine)
    text = stage.histories.texts[0]
    first, second = text[127], (text[127] + 5) % machine.manifest.vocabulary
    alone = []
    for token in (first, second):
        sequence = pool.open()
        pool.feed(sequence, text[:127])
        alone.append(logits_of(pool.feed(sequence, [token], every=RowFlag.LOGITS))[0])
    sequence = pool.open()
    pool.feed(sequence, text[:126])
    pool.reserve(sequence, 3)
    rows = [Row(text[126], RowFlag.LOGITS), Row(first, RowFlag.LOGITS),
            Row(second, RowFlag.LOGITS, visible=(0, 2), position=127)]
    results = machine.run([Group(sequence.slot, 126, rows, sequence.blocks)]).rows
    np.testing.assert_array_equal(results[1].logits, alone[0])
    # The second branch is stored one position later, in the next tile here, so only its maths may differ in the last
    # bits.
    branch = results[2].logits
    assert branch is not None and np.argmax(branch) == np.argmax(alone[1])


def test_tiles_aligned_to_the_pass_would_be_caught(stages, monkeypatch):
    """The same comparison fails for attention whose tiles start at the pass instead of at absolute positions."""
    true_attend = machine_module.attend

    def pass_aligned(queries, query_scales, keys, key_scales, values, value_scales, past, visible, factor):
        shift = -(past + len(queries)) % 128

        def moved(x):
            return np.concatenate([np.zeros((shift, *x.shape[1:]), x.dtype), x])

        # Positions slide so that the pass ends at a tile's end; what slid in is hidden behind a scale of zero.
        return true_attend(queries, query_scales, moved(keys), moved(key_scales), moved(values), moved(value_scales),
                           past + shift, visible, factor)

    monkeypatch.setattr(machine_module, "attend", pass_aligned)
    with pytest.raises(AssertionError):
        for seed in range(5):
            run_case(stages["grouped"].machines[4], stages["grouped"].histories, seed)


def test_models_fit(stages, tmp_path: Path):
    """The cases reach what they are meant to: tiles on both sides of 128, several rows, different positions."""
    assert max(LENGTHS) > 128 and stages["grouped"].machines[16].max_rows == 16
    first = stages["grouped"].histories.expected[0]
    assert not np.array_equal(first[0], first[1])
