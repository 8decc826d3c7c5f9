"""Arguments and messages that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hls_py.boards import DEFAULT_BOARD, Board, board_names, load_board
from hls_py.errors import TellmeError
from hls_py.progress import Progress  # noqa: F401  (every command's)


def add_board(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--board", default=DEFAULT_BOARD, metavar="NAME|FILE",
                        help=f"board: {', '.join(board_names())}, or a .yaml file (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="PARAMETER=VALUE", dest="overrides",
                        help="a design parameter other than the board's, such as rows=8; may be repeated")


MODEL_HELP = "model folder in Hugging Face form (config.json and safetensors), or a .gguf file"


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model as an option, for commands that make something else of it for a board."""
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER|FILE", help=MODEL_HELP)
    add_i2s_layout(parser)


def add_model_asked_about(parser: argparse.ArgumentParser) -> None:
    """The model as the argument, for commands that tell something of it."""
    parser.add_argument("model", type=Path, metavar="FOLDER|FILE", help=MODEL_HELP)
    add_i2s_layout(parser)


def add_i2s_layout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--i2s-layout", choices=("x86", "arm"), default=None,
                        help="where a .gguf file with I2_S weights was made (default: found out from the weights, or "
                             "refused)")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on the terminal")


def board_of(arguments: argparse.Namespace) -> Board:
    """The board that the arguments ask for, with its design's overrides."""
    return load_board(arguments.board, dict(map(_override, arguments.overrides)))


def _override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise TellmeError(f"--set {text}: give PARAMETER=VALUE, such as rows=8")
    if value.isdecimal():
        return name, int(value)
    return name, value.split(",") if name == "activations" else value
