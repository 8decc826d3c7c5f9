"""check: what a model is and what each board can do with it, or everything about it that isn't supported."""

from __future__ import annotations

import argparse

from hls_py.boards import Board, board_names, load_board
from hls_py.commands.common import add_model_asked_about, add_quiet
from hls_py.errors import TellmeError
from hls_py.model_import.survey import Survey, survey
from hls_py.packing.traffic import bus_bytes_per_second, positions_that_fit, traffic
from hls_py.progress import Progress
from hls_py.schedule.shape import ModelShape

MOST_ITEMS = 40
CONTEXT = 128
"""Positions behind which the bound on tokens a second is given first."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_asked_about(parser)
    parser.add_argument("--board", action="append", metavar="NAME|FILE",
                        help=f"board, may be repeated (default: {', '.join(board_names())})")
    parser.add_argument("--headers", action="store_true",
                        help="look at config, names and shapes only; don't read the weights")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    boards = [load_board(name) for name in arguments.board or board_names()]
    found = survey(arguments.model, arguments.i2s_layout, not arguments.headers, Progress(arguments.quiet).bars)
    if found.items:
        for item in found.items[:MOST_ITEMS]:
            print(f"not supported: {_printable(item)}")
        if len(found.items) > MOST_ITEMS:
            print(f"… and {len(found.items) - MOST_ITEMS} more")
        count = len(found.items)
        raise TellmeError(f"{arguments.model} can't run: {count} thing{'s' if count > 1 else ''} that "
                          f"{'are' if count > 1 else 'is'} not supported")
    print("\n".join(model_lines(found)))
    for board in boards:
        print("\n".join(board_lines(found, board)))


def model_lines(found: Survey) -> list[str]:
    assert found.model
    model, c = found.model, found.model.config
    norms = [name for name, there in (("attention", model.has_attention_sub_norm), ("FFN", model.has_ffn_sub_norm))
             if there]
    total = found.ternary_weights + found.other_weights
    zeros = "" if found.zeros is None else f", {100 * found.zeros:.1f} % of them zero"
    formats = model.source.formats
    return [
        f"{model.path}: {c.model_type}, {c.layers} layers",
        f"  hidden {c.hidden_size}, FFN {c.intermediate_size} ({c.activation}), {c.heads} heads of {c.head_dim}, "
        f"{c.kv_heads} KV heads, vocabulary {c.vocabulary}, context {c.max_positions}",
        f"  sub-norms: {' and '.join(norms) or 'none'}; rotary embedding: {c.rope.kind}, base {c.rope.theta:g}; "
        f"head: {'tied' if c.tied_head else 'its own'}",
        f"  stored: matrices {formats['matrices']}; embedding {formats['embedding']}; head {formats['head']}",
        f"  {total:,} weights, {found.ternary_weights:,} ternary ({100 * found.ternary_weights / total:.1f} %){zeros}",
    ]


def board_lines(found: Survey, board: Board) -> list[str]:
    """What fits on a board's design, and the bound of its bus on tokens a second."""
    assert found.model
    model = found.model
    shape = ModelShape(model.config, board.params, model.has_attention_sub_norm, model.has_ffn_sub_norm)
    try:
        shape.check()
    except TellmeError as error:
        return [f"{board.name}: no; {error}"]
    t, positions = traffic(shape), positions_that_fit(shape, board)
    sizes = (f"image {_size(t.image_bytes)} of {_size(board.memory_bytes)}, {_size(t.layers_bytes)} of layers and "
             f"{_size(t.head_bytes)} of head a token, {t.kv_bytes_per_token:,} bytes of KV a position")
    if not positions:
        return [f"{board.name}: no; it doesn't fit the memory ({sizes})"]
    rate = bus_bytes_per_second(board, board.memories[board.default_memory])
    near, far = min(CONTEXT, positions), positions
    bounds = ", ".join(f"{rate / t.decode_bytes(n):.1f} at context {n}" for n in dict.fromkeys((near, far)))
    return [f"{board.name}: yes, {shape.max_rows} of {board.params.rows} rows a pass, context up to {positions}",
            f"  {sizes}",
            f"  tokens/s at most, one sequence, by the bus ({board.default_memory}, {rate / 1e9:.1f} GB/s): {bounds}"]


def _printable(text: str) -> str:
    """One line that any terminal takes: names in a file may be anything."""
    return " ".join(text.split()).encode(errors="backslashreplace").decode()


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e10 else f"{count / 1e9:,.1f} GB"
