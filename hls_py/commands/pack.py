"""pack: a model's program and weight image for a design that exists."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from hls_py import design_folder
from hls_py.commands.common import Progress, add_model, add_quiet
from hls_py.output_folder import replace_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("design", type=Path, metavar="DESIGN", help="folder that `generate` wrote")
    add_model(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER",
                        help="folder to write (default: the design's, whose image is replaced)")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    params, report = design_folder.read_design(arguments.design), Progress(arguments.quiet)
    output = arguments.output or arguments.design
    in_place = arguments.output is None or (output.exists() and output.samefile(arguments.design))

    def fill(folder: Path) -> None:
        report(f"packing {arguments.model}")
        design_folder.write_image(params, arguments.model, folder, progress=report.bars,
                                  i2s_layout=arguments.i2s_layout)
        if in_place:
            for path in output.iterdir():
                if path.name not in design_folder.IMAGE_FILES and not (folder / path.name).exists():
                    _keep(path, folder / path.name)

    ours = design_folder.ALL_FILES if in_place else (*design_folder.IMAGE_FILES, "design.json")
    replace_folder(output, fill, ours)
    report(f"{output}: the image of {arguments.model}")


def _keep(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)
