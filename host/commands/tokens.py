"""tokens: token ids of a text file, as an array of integers that `tellme logits` reads.

The ids are those of a text from its beginning, with the tokens that the model's tokenizer puts before one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from host.commands.common import DEMO_MODEL
from host.commands.logits import check_outputs, write_array
from host.errors import HostError
from host.text import Text

HELP = "token ids of a text file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, metavar="FOLDER|FILE",
                        help="model folder with tokenizer.json or tokenizer.model, or a .gguf file (default: the "
                             "shipped demo model)")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="text in UTF-8")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where to write the .npy")
    parser.add_argument("--cache", type=Path, metavar="FOLDER",
                        help="where a .gguf file's tokenizer is kept (default: build/ of the project)")


def run(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output
    check_outputs(output)
    try:
        text = arguments.text.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise HostError(f"{arguments.text} is not UTF-8: {error}") from None
    write_array(output, np.array(Text(arguments.model, arguments.cache).encode(text), np.int64))
