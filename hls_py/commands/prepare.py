"""prepare: everything that running a model on a board's design needs, made or found; for programs that run it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hls_py.cache import Cache
from hls_py.commands.common import Progress, add_board, add_model, add_quiet, board_of
from hls_py.emit.verilator import build_root

DEVICES = ("verilator", "golden")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_board(parser)
    add_model(parser)
    parser.add_argument("--device", choices=DEVICES, default="verilator",
                        help="verilator: with the simulator of the design; golden: image and board only "
                             "(default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=None, metavar="FOLDER",
                        help="where things are kept (default: build/ of the project)")
    add_quiet(parser)
    parser.epilog = ('prints {"image": folder, "board": file, "design": folder or null, "simulator": file or null}, '
                     "absolute paths")


def run(arguments: argparse.Namespace) -> None:
    board = board_of(arguments)
    cache = Cache((arguments.cache or build_root()).resolve(), Progress(arguments.quiet))
    image = cache.image(board.params, arguments.model, arguments.i2s_layout)
    found: dict[str, Path | None] = {"image": image, "board": cache.board(board), "design": None, "simulator": None}
    if arguments.device == "verilator":
        found["design"] = design = cache.design(board.params)
        found["simulator"] = cache.simulator(board.params, design)
    print(json.dumps({name: path and str(path) for name, path in found.items()}), flush=True)
