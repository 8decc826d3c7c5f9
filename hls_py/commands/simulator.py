"""simulator: the shared library of a design and a model of the board's memory."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from hls_py import design_folder
from hls_py.cache import Cache
from hls_py.commands.common import Progress, add_quiet
from hls_py.emit.verilator import build_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("design", type=Path, metavar="DESIGN",
                        help="folder that `generate` wrote; the library goes there")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", default=None,
                        help="where compiled simulators are kept (default: build/ of the project)")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    report = Progress(arguments.quiet)
    params = design_folder.read_design(arguments.design)
    library = Cache(arguments.cache or build_root(), report).simulator(params, arguments.design)
    target = arguments.design / design_folder.LIBRARY_FILE
    with tempfile.TemporaryDirectory(prefix=".simulator-", dir=arguments.design) as work:
        shutil.copy2(library, work)
        os.replace(Path(work) / library.name, target)
    report(f"{target} is ready")
