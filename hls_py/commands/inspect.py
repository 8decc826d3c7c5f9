"""inspect: what a packed image is; or its first difference from another image, or from the model it was packed from."""

from __future__ import annotations

import argparse
from pathlib import Path

from hls_py.commands.common import add_i2s_layout, add_quiet
from hls_py.errors import TellmeError
from hls_py.model_import.model import Model
from hls_py.packing.compare import Image, first_difference, first_difference_from_source, is_image, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="IMAGE", help="folder that `generate` or `pack` wrote")
    parser.add_argument("other", type=Path, nargs="?", metavar="IMAGE|MODEL",
                        help="another such folder, a model folder or a .gguf file")
    add_i2s_layout(parser)
    add_quiet(parser)
    parser.epilog = "exit status 1 when they differ"


def run(arguments: argparse.Namespace) -> None:
    image = Image(arguments.image)
    if arguments.other is None:
        print("\n".join(summary(image)))
        return
    if is_image(arguments.other):
        found = first_difference(image, Image(arguments.other))
    else:
        found = first_difference_from_source(image, Model(arguments.other, arguments.i2s_layout))
    if found:
        raise TellmeError(f"{arguments.image} and {arguments.other} differ in their {found}")
    print(f"{arguments.image} and {arguments.other} are the same")
