"""Conversations and sequences: turns equal one long run, full contexts and memories refuse and lose nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from host.accelerator import Accelerator, Group, Row
from host.devices.golden import GoldenDevice
from host.errors import HostError
from host.sampler import Sampling
from host.sequences import SequencePool, logits_of
from host.session import Session
from rtl.contract.number_formats import TILE_POSITIONS
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.machines import all_logits, small_design

TEXT = np.random.default_rng(3).integers(2, 67, 160).tolist()


def greedy(logits: np.ndarray) -> int:
    return int(np.argmax(logits))


def history(session: Session) -> list[int]:
    """Records every token that the session feeds."""
    fed: list[int] = []
    feed = session.pool.feed

    def recorded(sequence, tokens, **flags):
        fed.extend(tokens)
        return feed(sequence, tokens, **flags)

    session.pool.feed = recorded  # type: ignore[method-assign, assignment]
    return fed


def test_turns_equal_one_long_run(machine: Accelerator):
    """Every generated token is what an uncut run of all that was said gives, and the next logits are the same bits."""
    session = Session(machine)
    fed = history(session)
    said: list[int] = []
    checks: list[tuple[int, int]] = []
    for prompt, count in ((TEXT[:9], 5), (TEXT[9:10], 1), (TEXT[10:33], 0), (TEXT[33:37], 7)):
        said += prompt
        for token in session.generate(prompt, count):
            checks.append((len(said), token))
            said.append(token)
    assert len(checks) == 13 and fed == said[:-1]  # the last token waits for the next turn
    expected = all_logits(machine, said)
    assert [greedy(expected[length - 1]) for length, _ in checks] == [token for _, token in checks]
    row = session.pool.feed(session.sequence, said[-1:], last=RowFlag.LOGITS)[-1]
    assert row.logits is not None
    np.testing.assert_array_equal(row.logits.view(np.uint32), expected[-1].view(np.uint32))


def test_a_stop_token_ends_a_turn_and_stays_in_the_history(machine: Accelerator):
    first = list(Session(machine).generate(TEXT[:8], 8))
    stop = next(t for t in first if t not in first[:2] or first.index(t) == 1)
    session = Session(machine, stop_tokens=frozenset([stop]))
    fed = history(session)
    until = first[:first.index(stop)]
    assert list(session.generate(TEXT[:8], 8)) == until
    list(session.generate(TEXT[8:10], 0))
    assert fed == TEXT[:8] + until + [stop] + TEXT[8:10]


def test_a_turn_that_is_left_early_goes_on(machine: Accelerator):
    session = Session(machine)
    fed = history(session)
    token = next(session.generate(TEXT[:5], 9))
    list(session.generate(TEXT[5:7], 0))
    assert fed == TEXT[:5] + [token] + TEXT[5:7]


def test_sampled_turns_repeat_with_their_seed(machine: Accelerator):
    runs = [list(Session(machine, Sampling(1.0, top_k, 0.9, 5)).generate(TEXT[:4], 12)) for top_k in (4, 4)]
    assert runs[0] == runs[1]
    assert runs[0] != list(Session(machine, Sampling(1.0, 4, 0.9, 6)).generate(TEXT[:4], 12))


def test_a_full_context_is_refused_and_nothing_is_lost(machine: Accelerator):
    session = Session(machine)
    generated = list(session.generate(TEXT[:150], 64))
    assert len(generated) == 11  # ten are fed, the last needs no place
    expected = all_logits(machine, (TEXT[:150] + generated)[:160])
    assert [greedy(row) for row in expected[149:]] == generated
    for _ in range(2):
        with pytest.raises(HostError, match="the prompt has 2 tokens, the context of 160 has room for 0"):
            session.generate(TEXT[:1], 5)
    session.pool.rewind(session.sequence, 150)
    session._pending = None
    row = session.pool.feed(session.sequence, generated[:1], last=RowFlag.LOGITS)[-1]
    assert row.logits is not None
    np.testing.assert_array_equal(row.logits, expected[150])


@pytest.mark.parametrize("prompt, count, message", [
    ([], 4, "the prompt is empty"), ([1, 67], 4, "token 67 is outside the vocabulary of 67"),
    ([-1], 4, "token -1 is outside"), ([1], -1, "max-tokens is -1"), ([3] * 161, 1, "has 161 tokens, .* room for 160")])
def test_refusals_come_before_anything_runs(machine: Accelerator, prompt, count, message):
    session = Session(machine)
    expected = list(Session(machine).generate(TEXT[:6], 4))
    with pytest.raises(HostError, match=message):
        session.generate(prompt, count)
    assert session.sequence.length == 0 and list(session.generate(TEXT[:6], 4)) == expected


def test_a_smaller_context_than_the_models(tiny_image: Path):
    small = Accelerator(GoldenDevice(small_design(), 8 << 20), tiny_image, max_context=20)
    assert small.max_context == 20
    assert len(list(Session(small).generate(TEXT[:15], 64))) == 6
    for context in (0, -1, 161):
        with pytest.raises(HostError, match=f"a context of {context} positions"):
            Accelerator(GoldenDevice(small_design(), 8 << 20), tiny_image, max_context=context)


# ---- slots and blocks -----------------------------------------------------------------------------------------------


def test_slots_run_out_and_come_back(machine: Accelerator):
    pool = SequencePool(machine)
    sequences = [pool.open() for _ in range(machine.params.max_slots)]
    assert sorted(s.slot for s in sequences) == list(range(machine.params.max_slots))
    with pytest.raises(HostError, match="all 16 slots are in use"):
        pool.open()
    pool.close(sequences[5])
    assert pool.open().slot == 5
    pool.close(sequences[7])
    with pytest.raises(HostError, match="slot 7 is closed already"):
        pool.close(sequences[7])


def test_blocks_run_out_and_come_back(tiny_image: Path):
    """A memory for three blocks: a sequence over two, one over one, and no more."""
    machine = with_blocks(tiny_image, 3)
    pool = SequencePool(machine)
    first, second, third = pool.open(), pool.open(), pool.open()
    pool.feed(first, TEXT[:TILE_POSITIONS + 1])
    pool.feed(second, TEXT[:3])
    for _ in range(2):
        with pytest.raises(HostError, match="has 0 free blocks, 1 are needed"):
            pool.feed(third, TEXT[:1])
        assert third.length == 0 and not third.blocks
    used = first.blocks + second.blocks
    assert sorted(used) == [0, 1, 2]
    pool.close(first)
    results = logits_of(pool.feed(third, TEXT[:20], every=RowFlag.LOGITS))
    np.testing.assert_array_equal(results, all_logits(with_blocks(tiny_image, 3), TEXT[:20]))
    # The second's block was left alone.
    more = logits_of(pool.feed(second, TEXT[3:6], every=RowFlag.LOGITS))
    np.testing.assert_array_equal(more, results[3:6])


def with_blocks(image: Path, blocks: int) -> Accelerator:
    """A machine whose memory holds just ``blocks`` KV blocks."""
    for size in range(1 << 20, 8 << 20, 1 << 16):
        try:
            machine = Accelerator(GoldenDevice(small_design(), size), image, verify=False)
        except HostError:
            continue
        if machine.map.blocks >= blocks:
            break
    machine.map.blocks = blocks
    return machine


def test_one_blocks_memory_is_a_context_of_one_block(tiny_image: Path):
    assert with_blocks(tiny_image, 1).max_context == TILE_POSITIONS
    with pytest.raises(HostError, match="room for 128"):
        Session(with_blocks(tiny_image, 1)).generate(TEXT[:129], 1)


def test_rewind_forgets_positions(machine: Accelerator):
    expected = all_logits(machine, TEXT[:140])
    pool = SequencePool(machine)
    sequence = pool.open()
    pool.feed(sequence, TEXT[:126] + [9] * 10)
    blocks = list(sequence.blocks)
    pool.rewind(sequence, 126)
    results = logits_of(pool.feed(sequence, TEXT[126:140], every=RowFlag.LOGITS))
    np.testing.assert_array_equal(results, expected[126:140])
    assert sequence.blocks == blocks
    for length in (-1, 141):
        with pytest.raises(HostError, match="can't rewind a sequence of 140"):
            pool.rewind(sequence, length)


def test_passes_that_cannot_be_built(machine: Accelerator):
    pool = SequencePool(machine)
    sequence = pool.open()
    pool.reserve(sequence, 4)
    for rows in (0, 5, -1):
        with pytest.raises(HostError, match=f"rows per pass is {rows}; .* runs 1 … 4"):
            pool.feed(sequence, TEXT[:2], rows_per_pass=rows)
    for groups, message in (
            ([], "a pass has 0 rows"), ([Group(0, 0, [], [])], "a pass has 0 rows"),
            ([Group(0, 0, [Row(1)] * 5, sequence.blocks)], "a pass has 5 rows; this model runs 1 … 4"),
            ([Group(0, 128, [Row(1)], sequence.blocks)], "129 positions need 2 KV blocks, the sequence has 1"),
            ([Group(0, 160, [Row(1)], [0, 1])], "position 161 is beyond the context of 160")):
        with pytest.raises(HostError, match=message):
            machine.run(groups)
    assert len(pool.feed(sequence, TEXT[:4])) == 4
