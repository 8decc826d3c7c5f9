"""A row's bits depend only on its own history: golden under random cuts, batches, drafts and rubbish in unused memory.

Every case is held, bit for bit, against an uncut run of one row a pass on a design with P = 1.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from hls_py.golden.machine import machine as machine_module
from host.accelerator import Accelerator, Group, Row
from host.sequences import Sequence, SequencePool, logits_of
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.machines import all_logits, golden_machine, small_design
from sim_tests.harness.models import TinyModel

LENGTHS = (139, 131, 40)
MODELS = {
    "grouped": TinyModel(),
    "no_sub_norms": TinyModel(hidden=72, heads=3, kv_heads=3, head_dim=18, ffn=100, sub_norms=False, activation="relu2",
                              tied=False, seed=2),
}
CASES_PER_SETTING = 52
"""2 models × (P = 4, P = 16) × 52 = 208 cases."""


@dataclass
class Stage:
    """A model's texts and their logits from the uncut run, and machines by P."""

    texts: list[list[int]]
    expected: list[np.ndarray]
    machines: dict[int, Accelerator] = field(default_factory=dict)


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, Stage]:
    out = {}
    for name, model in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        model.write(folder / "model")
        rng = np.random.default_rng(5)
        texts = [rng.integers(0, model.vocabulary, length).tolist() for length in LENGTHS]
        alone = golden_machine(folder / "model", small_design(rows=1), folder / "image1")
        stage = Stage(texts, [all_logits(alone, text) for text in texts])
        for rows in (4, 16):
            design = small_design(rows=rows, row_vectors=4 if rows == 4 else 6)
            stage.machines[rows] = golden_machine(folder / "model", design, folder / f"image{rows}")
        out[name] = stage
    return out


def fill_with_nan(machine: Accelerator) -> None:
    """Every byte of the KV cache becomes 0xFF: scales are NaN, codes −1."""
    for base in machine.map.kv.bases:
        machine.device.write_memory(base, np.full(machine.map.kv.beats * machine.params.port_bytes, 0xFF, np.uint8))


def run_case(machine: Accelerator, stage: Stage, seed: int) -> None:
    """Feed one to three of the texts in random passes, with rejected drafts between; compare every row."""
    rng = random.Random(seed)
    fill_with_nan(machine)
    pool = SequencePool(machine)
    chosen = rng.sample(range(len(stage.texts)), rng.choice((1, 1, 2, 3)))
    sequences = {n: pool.open() for n in chosen}
    for n, sequence in sequences.items():
        # Most cases begin shortly before the tile boundary at 128; what comes before is fed in whole passes.
        start = rng.choice((0, 100, 115, 123, 126, 127))
        if start < len(stage.texts[n]):
            pool.feed(sequence, stage.texts[n][:start])
    while live := [n for n in chosen if sequences[n].length < len(stage.texts[n])]:
        budget = rng.choice((1, 2, 3, machine.max_rows, machine.max_rows, machine.max_rows))
        rng.shuffle(live)
        groups, expected = [], []
        for n in live:
            text, sequence = stage.texts[n], sequences[n]
            count = min(rng.randint(1, max(1, budget)), len(text) - sequence.length, budget)
            if not count:
                continue
            budget -= count
            groups.append((n, count))
            expected.append(stage.expected[n][sequence.length:sequence.length + count])
        if rng.random() < 0.15:
            reject_draft(machine, pool, sequences[groups[0][0]], stage, rng)
        inputs = []
        for n, count in groups:
            sequence = sequences[n]
            pool.reserve(sequence, count)
            tokens = stage.texts[n][sequence.length:sequence.length + count]
            inputs.append(Group(sequence.slot, sequence.length, [Row(t, RowFlag.LOGITS) for t in tokens],
                                sequence.blocks))
        results = machine.run(inputs).rows
        got = np.stack([r.logits for r in results if r.logits is not None])
        np.testing.assert_array_equal(got.view(np.uint32), np.concatenate(expected).view(np.uint32),
                                      err_msg=f"seed {seed}, groups {groups}")
        for n, count in groups:
            sequences[n].length += count


def reject_draft(machine: Accelerator, pool: SequencePool, sequence: Sequence, stage: Stage,
                 rng: random.Random) -> None:
    """Run wrong tokens behind a sequence and take them back."""
    count = rng.randint(1, machine.max_rows)
    length = sequence.length
    if length + count > machine.max_context:
        return
    pool.feed(sequence, [rng.randrange(machine.manifest.vocabulary) for _ in range(count)])
    pool.rewind(sequence, length)


@pytest.mark.parametrize("rows", [4, 16])
@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("part", range(4))
def test_any_cut_any_company(stages, model: str, rows: int, part: int):
    size = CASES_PER_SETTING // 4
    for seed in range(part * size, (part + 1) * size):
        run_case(stages[model].machines[rows], stages[model], seed)


def test_drafts_accepted_in_part(stages):
    """Four drafted tokens of which two are right: the accepted rows' logits are those of the uncut run."""
    stage = stages["grouped"]
    machine = stage.machines[4]
    fill_with_nan(machine)
    pool = SequencePool(machine)
    text, expected = stage.texts[0], stage.expected[0]
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
    text = stage.texts[0]
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
            run_case(stages["grouped"].machines[4], stages["grouped"], seed)


def test_models_fit(stages, tmp_path: Path):
    """The cases reach what they are meant to: tiles on both sides of 128, several rows, different positions."""
    assert max(LENGTHS) > 128 and stages["grouped"].machines[16].max_rows == 16
    assert not np.array_equal(stages["grouped"].expected[0][0], stages["grouped"].expected[0][1])
