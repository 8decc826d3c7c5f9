"""random-model: a model of given dimensions with random ternary weights, to size a board for a model that one lacks."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from hls_py.commands.common import Progress, add_quiet
from hls_py.errors import TellmeError
from hls_py.model_import.config import ACTIVATIONS, parse_config
from hls_py.random_model import RandomModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; it must not exist")
    for name, what in (("hidden", "width of the residual"), ("ffn", "width of the feed-forward part"),
                       ("heads", "query heads")):
        parser.add_argument(f"--{name}", type=int, required=True, metavar="N", help=what)
    parser.add_argument("--kv-heads", type=int, metavar="N", help="key/value heads (default: as many as query heads)")
    parser.add_argument("--head-dim", type=int, metavar="N", help="width of a head (default: hidden / heads)")
    parser.add_argument("--layers", type=int, default=1, metavar="N", help="layers (default: %(default)s)")
    parser.add_argument("--vocabulary", type=int, default=256, metavar="N", help="tokens (default: %(default)s)")
    parser.add_argument("--positions", type=int, default=2048, metavar="N", dest="max_positions",
                        help="longest context (default: %(default)s)")
    parser.add_argument("--activation", default="silu", choices=sorted(ACTIVATIONS),
                        help="of the feed-forward part (default: %(default)s)")
    parser.add_argument("--no-sub-norms", action="store_false", dest="sub_norms",
                        help="without the norms before the output and down matrices")
    parser.add_argument("--untied", action="store_false", dest="tied", help="with a head of its own")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(default: %(default)s)")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    given = dict(vars(arguments))
    given["kv_heads"] = given["kv_heads"] or given["heads"]
    given["head_dim"] = given["head_dim"] or given["hidden"] // max(1, given["heads"])
    model = RandomModel(**{field.name: given[field.name] for field in fields(RandomModel)})
    parse_config(model.config(), "these dimensions")
    folder: Path = arguments.folder
    if folder.exists():
        raise TellmeError(f"{folder} exists already; name a folder that doesn't")
    model.write(folder)
    Progress(arguments.quiet)(f"{folder}: {model.ternary_weights:,} ternary weights")
