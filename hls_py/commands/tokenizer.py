"""tokenizer: a GGUF file's tokenizer and chat template as the files of a model folder; for programs that run it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hls_py.cache import Cache
from hls_py.commands.common import Progress, add_quiet
from hls_py.emit.verilator import build_root
from hls_py.errors import TellmeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="FOLDER|FILE", help="a .gguf file, or a model folder")
    parser.add_argument("--cache", type=Path, default=None, metavar="FOLDER",
                        help="where things are kept (default: build/ of the project)")
    add_quiet(parser)
    parser.epilog = 'prints {"tokenizer": folder}, an absolute path'


def run(arguments: argparse.Namespace) -> None:
    if not arguments.model.exists():
        raise TellmeError(f"{arguments.model} does not exist")
    cache = Cache((arguments.cache or build_root()).resolve(), Progress(arguments.quiet))
    print(json.dumps({"tokenizer": str(cache.tokenizer(arguments.model).resolve())}), flush=True)
