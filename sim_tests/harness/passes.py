"""Passes of many kinds on any machine: random cuts, company, drafts; and what must not change by them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from host.accelerator import Accelerator, Group, Row
from host.sequences import Sequence, SequencePool, logits_of
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.machines import all_logits, golden_machine, small_design
from sim_tests.harness.models import TinyModel

LENGTHS = (139, 131, 40)


def assert_equal(got: np.ndarray, expected: np.ndarray) -> None:
    """Bit for bit, naming the first position that differs."""
    same = (got.view(np.uint32) == expected.view(np.uint32)).all(axis=1)
    assert same.all(), f"logits differ first at position {int(np.argmin(same))} of {len(same)}"


def random_passes(machine: Accelerator, texts: list[list[int]], seed: int, pool: SequencePool,
                  sequences: list[Sequence]) -> np.ndarray:
    """Logits of every row while the rest of ``texts`` is fed in random passes; the same passes for the same seed."""
    rng = random.Random(seed)
    out = []
    while live := [n for n, s in enumerate(sequences) if s.length < len(texts[n])]:
        rng.shuffle(live)
        room, groups = rng.randint(1, machine.max_rows), []
        for n in live:
            count = min(rng.randint(1, 4), room, len(texts[n]) - sequences[n].length)
            if count:
                groups.append((n, count))
                room -= count
        inputs = []
        for n, count in groups:
            s = sequences[n]
            pool.reserve(s, count)
            rows = [Row(t, RowFlag.LOGITS) for t in texts[n][s.length:s.length + count]]
            inputs.append(Group(s.slot, s.length, rows, s.blocks))
        out.append(logits_of(machine.run(inputs).rows))
        for n, count in groups:
            sequences[n].length += count
    return np.concatenate(out)


@dataclass
class Histories:
    """Texts, and the logits that each of their positions has wherever and however it is computed."""

    texts: list[list[int]]
    expected: list[np.ndarray]


def uncut(model: TinyModel, folder: Path) -> Histories:
    """Texts of LENGTHS tokens and their logits by golden, one row a pass, on a design with P = 1."""
    model.write(folder / "model")
    rng = np.random.default_rng(5)
    texts = [rng.integers(0, model.vocabulary, length).tolist() for length in LENGTHS]
    alone = golden_machine(folder / "model", small_design(rows=1), folder / "image1")
    return Histories(texts, [all_logits(alone, text) for text in texts])


def fill_with_nan(machine: Accelerator) -> None:
    """Every byte of the KV cache becomes 0xFF: scales are NaN, codes −1."""
    for base in machine.map.kv.bases:
        machine.device.write_memory(base, np.full(machine.map.kv.beats * machine.params.port_bytes, 0xFF, np.uint8))


def run_case(machine: Accelerator, histories: Histories, seed: int) -> None:
    """Feed one to three of the texts in random passes, with rejected drafts between; compare every row."""
    rng = random.Random(seed)
    fill_with_nan(machine)
    pool = SequencePool(machine)
    chosen = rng.sample(range(len(histories.texts)), rng.choice((1, 1, 2, 3)))
    sequences = {n: pool.open() for n in chosen}
    for n, sequence in sequences.items():
        # Most cases begin shortly before the tile boundary at 128; what comes before is fed in whole passes.
        start = rng.choice((0, 100, 115, 123, 126, 127))
        if start < len(histories.texts[n]):
            pool.feed(sequence, histories.texts[n][:start])
    while live := [n for n in chosen if sequences[n].length < len(histories.texts[n])]:
        budget = min(rng.choice((1, 2, 3, *3 * (machine.max_rows,))), machine.max_rows)
        rng.shuffle(live)
        groups, expected = [], []
        for n in live:
            text, sequence = histories.texts[n], sequences[n]
            count = min(rng.randint(1, max(1, budget)), len(text) - sequence.length, budget)
            if not count:
                continue
            budget -= count
            groups.append((n, count))
            expected.append(histories.expected[n][sequence.length:sequence.length + count])
        if rng.random() < 0.15:
            reject_draft(machine, pool, sequences[groups[0][0]], rng)
        inputs = []
        for n, count in groups:
            sequence = sequences[n]
            pool.reserve(sequence, count)
            tokens = histories.texts[n][sequence.length:sequence.length + count]
            inputs.append(Group(sequence.slot, sequence.length, [Row(t, RowFlag.LOGITS) for t in tokens],
                                sequence.blocks))
        got = logits_of(machine.run(inputs).rows)
        np.testing.assert_array_equal(got.view(np.uint32), np.concatenate(expected).view(np.uint32),
                                      err_msg=f"seed {seed}, groups {groups}")
        for n, count in groups:
            sequences[n].length += count


def reject_draft(machine: Accelerator, pool: SequencePool, sequence: Sequence, rng: random.Random) -> None:
    """Run wrong tokens behind a sequence and take them back."""
    count = rng.randint(1, machine.max_rows)
    length = sequence.length
    if length + count > machine.max_context:
        return
    pool.feed(sequence, [rng.randrange(machine.manifest.vocabulary) for _ in range(count)])
    pool.rewind(sequence, length)


