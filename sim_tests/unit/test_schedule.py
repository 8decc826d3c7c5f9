"""Tiles, stream order and program: every output once, and no program that could wait for ever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hls_py.boards import load_board
from hls_py.errors import TellmeError
from hls_py.model_import.config import parse_config
from hls_py.schedule.check import check_program
from hls_py.schedule.program import compile_program
from hls_py.schedule.shape import ModelShape
from hls_py.schedule.stream_order import gated_tiles, layer_records
from hls_py.schedule.tiles import Chain, Part, chunk_tiles, end_cycles, plan_chain
from rtl.contract import command_words as words
from rtl.contract.command_words import Opcode
from sim_tests.harness.machines import small_design
from sim_tests.harness.models import TinyModel


def shape_of(model: TinyModel, **design: object) -> ModelShape:
    return ModelShape(parse_config(model.config()), small_design(**design), model.sub_norms, model.sub_norms)


def program_of(shape: ModelShape, with_head: bool = True) -> bytes:
    return compile_program(shape, lambda layer, matrix: 0.5, with_head)


@settings(max_examples=60, deadline=None)
@given(outputs=st.lists(st.integers(1, 5000), min_size=1, max_size=3), unit=st.sampled_from([8, 24, 96, 104]),
       steps=st.integers(64, 512), slices=st.integers(1, 80), rows=st.integers(1, 4),
       kind=st.sampled_from([((1,), False), ((1, 1), True), ((1, 1), False), ((5, 1), False)]))
def test_tiles_cover_every_output_once(outputs: list[int], unit: int, steps: int, slices: int, rows: int, kind: tuple):
    params, (factors, paired) = small_design(tile_steps=steps, drain_steps=2 * steps, max_head_dim=64), kind
    parts = tuple(Part(-(-n // unit) * unit, unit, factors, paired) for n in outputs)
    plans = plan_chain(Chain(parts, slices, rows), params)
    assert end_cycles(plans, Chain(parts, slices, rows), rows, params) < 1 << 60
    for part, plan in zip(parts, plans, strict=True):
        chunks = chunk_tiles(part, plan, params)
        for n, factor in enumerate(factors):
            tiles = [tile for chunk in chunks for tile in chunk[n]]
            assert [t.first for t in tiles] == [sum(t.outputs for t in tiles[:i]) for i in range(len(tiles))]
            assert sum(t.outputs for t in tiles) == factor * part.outputs
            assert all(t.outputs % unit == 0 and t.steps == -(-t.outputs // params.outputs) <= steps for t in tiles)
        if paired:
            assert all([len(tiles) for tiles in chunk] == [1, 1] for chunk in chunks)


def test_tiles_hide_quantise_and_drain():
    """The KV260's matrices: what is left exposed at 16 rows, and that a plan for 16 rows costs one row nothing."""
    params = load_board("kv260").params
    values, others = Part(1536, 96, head_dim=96), Part(1536, 96, (1, 1), head_dim=96)
    residual, ffn = Part(1536, 8), Part(4096, 8, (1, 1), paired=True)
    for parts, slices, steps, exposed in (((values, others), 26, 924, 3000), ((residual,), 26, 308, 5000),
                                          ((ffn,), 26, 1640, 3600), ((residual,), 69, 308, 2100)):
        chain = Chain(parts, slices, 16)
        plans = plan_chain(chain, params)
        assert end_cycles(plans, chain, 16, params) <= slices * steps + exposed
        assert end_cycles(plans, chain, 1, params) <= slices * steps + 400
        whole = [[part.outputs // 2 // part.unit * part.unit] * 2 for part in parts]
        assert end_cycles(plans, chain, 16, params) <= end_cycles(whole, chain, 16, params)


@settings(max_examples=60, deadline=None)
@given(hidden=st.integers(8, 320), layers=st.integers(1, 3), kv_heads=st.integers(1, 3), per_kv=st.integers(1, 3),
       pairs=st.integers(2, 50), ffn=st.integers(5, 500), sub_norms=st.booleans(), tied=st.booleans(),
       with_head=st.booleans())
def test_programs_of_any_model_end(hidden, layers, kv_heads, per_kv, pairs, ffn, sub_norms, tied, with_head):
    model = TinyModel(hidden=hidden, layers=layers, heads=kv_heads * per_kv, kv_heads=kv_heads, head_dim=2 * pairs,
                      ffn=ffn,
                      sub_norms=sub_norms, tied=tied)
    shape = shape_of(model, max_kv_width=3 * 112, max_inner=1024)
    check_program(shape, program_of(shape, with_head), with_head)


def _commands(program: bytes) -> list[bytes]:
    size = words.COMMAND_BYTES
    return [program[i:i + size] for i in range(0, len(program), size)]


def test_a_lost_signal_is_refused():
    shape = shape_of(TinyModel())
    commands = _commands(program_of(shape))
    gather = next(i for i, c in enumerate(commands) if words.decode(c)[0] is Opcode.GATHER)
    fields = words.decode(commands[gather])[1]
    commands[gather] = words.GATHER.pack(**{**fields, "signal": 0})
    with pytest.raises(TellmeError, match=r"wait for ever at command 1 \(QUANTISE\)"):
        check_program(shape, b"".join(commands), True)


def test_a_ring_too_small_for_a_pair_is_refused(monkeypatch):
    shape = shape_of(TinyModel(hidden=64, ffn=384))
    program, records = program_of(shape), list(layer_records(shape, 0))
    monkeypatch.setattr("hls_py.schedule.check.layer_records", lambda shape, layer: records)
    # As if the same program ran on a design whose ring doesn't hold a pair.
    object.__setattr__(shape.params, "drain_steps", 2 * gated_tiles(shape)[0].steps - 1)
    with pytest.raises(TellmeError, match="wait for ever"):
        check_program(shape, program, True)


def test_leftovers_are_refused():
    shape = shape_of(TinyModel())
    with pytest.raises(TellmeError, match=r"leaves behind|stream holds|wait for ever"):
        check_program(shape, program_of(shape, with_head=False), True)


def test_a_model_that_does_not_fit_names_the_limit():
    with pytest.raises(TellmeError, match=r"head_dim.*max_head_dim"):
        program_of(shape_of(TinyModel(head_dim=130)))
    with pytest.raises(TellmeError, match="activation"):
        program_of(shape_of(TinyModel(activation="relu2"), activations=("silu",)))


@pytest.mark.parametrize("kv_heads, rows", [(2, 32), (3, 16), (4, 16), (5, 0)])
def test_rows_of_models_wider_than_max_kv_width(kv_heads: int, rows: int):
    """New V lie in words of 16 rows: fewer rows make room for wider ones only 16 at a time."""
    shape = shape_of(TinyModel(hidden=64, heads=kv_heads, kv_heads=kv_heads, head_dim=16), rows=32, max_kv_width=32)
    assert shape.max_rows == rows
    if not rows:
        with pytest.raises(TellmeError, match="max_kv_width"):
            shape.check()
