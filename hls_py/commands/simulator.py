"""simulator: the shared library of a design and a model of the board's memory."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from hls_py import design_folder
from hls_py.cache import Cache
from hls_py.commands.common import Progress, add_quiet
from hls_py.emit.verilator import build_root
from rtl.contract.design_params import DesignParams


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("design", type=Path, metavar="DESIGN",
                        help="folder that `generate` wrote; the library goes there")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", default=None,
                        help="where compiled simulators are kept (default: build/ of the project)")
    parser.add_argument("--time", action="store_true",
                        help="compile everything anew, whatever was compiled before, and print the seconds it took")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    report = Progress(arguments.quiet)
    params = design_folder.read_design(arguments.design)
    target = arguments.design / design_folder.LIBRARY_FILE
    if arguments.time:
        compile_timed(params, arguments.design, target)
    else:
        library = Cache(arguments.cache or build_root(), report).simulator(params, arguments.design)
        with tempfile.TemporaryDirectory(prefix=".simulator-", dir=arguments.design) as work:
            shutil.copy2(library, work)
            os.replace(Path(work) / library.name, target)
    report(f"{target} is ready")


def compile_timed(params: DesignParams, design: Path, target: Path) -> None:
    """Compile without any cache, as many files at a time as there are cores."""
    from hls_py.emit.simulator.build import build_simulator
    cores = len(os.sched_getaffinity(0))
    begin = time.monotonic()
    build_simulator(params, design_folder.simulator_sources(design), target, jobs=cores, object_cache=False)
    seconds = time.monotonic() - begin
    print(f"{params.rows} rows, {params.ports} ports of {params.port_bytes} bytes: compiled in {seconds:.0f} s on "
          f"{cores} cores (load {os.getloadavg()[0]:.1f})")
