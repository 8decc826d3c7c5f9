"""generate: Verilog, design.json, board.json, C header, program and weight image of a model on a board."""

from __future__ import annotations

import argparse
from pathlib import Path

from hls_py import design_folder
from hls_py.boards import BOARD_FILE
from hls_py.commands.common import Progress, add_board, add_model, add_quiet, board_of
from hls_py.output_folder import replace_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_board(parser)
    add_model(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder to write")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    board, report = board_of(arguments), Progress(arguments.quiet)

    def fill(folder: Path) -> None:
        report(f"packing {arguments.model}")
        design_folder.write_image(board.params, arguments.model, folder, progress=report.bars,
                                  i2s_layout=arguments.i2s_layout)
        with report.during("generating the Verilog"):
            design_folder.write_design(board.params, folder)
        design_folder.write_board(board, folder)

    replace_folder(arguments.output, fill, design_folder.ALL_FILES)
    report(f"{arguments.output}: {design_folder.VERILOG_FILE}, {design_folder.HEADER_FILE}, {BOARD_FILE} and the image "
           f"of {arguments.model} for {board.name}")
