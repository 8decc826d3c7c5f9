"""logits: teacher-forced logits of every position of a token file, as float32 [n, vocabulary]."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from host.commands.common import add_target, target_of
from host.devices.open import open_accelerator
from host.errors import HostError
from host.sequences import SequencePool, logits_of
from rtl.contract.pass_descriptor import RowFlag

HELP = "teacher-forced logits of a token file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--tokens", type=Path, required=True, metavar="FILE", help="token ids, one-dimensional .npy of integers")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where to write the .npy")
    parser.add_argument("--rows-per-pass", type=int, metavar="R", help="rows of the prompt a pass (default: as many as fit)")


def run(arguments: argparse.Namespace) -> None:
    tokens = read_tokens(arguments.tokens)
    accelerator = open_accelerator(target_of(arguments))
    pool = SequencePool(accelerator)
    sequence = pool.open()
    rows = arguments.rows_per_pass or accelerator.max_rows
    pool.check(sequence, tokens, rows)
    parts = []
    with tqdm(total=len(tokens), unit="token", disable=arguments.quiet or None) as bar:
        for first in range(0, len(tokens), rows):
            parts += pool.feed(sequence, tokens[first:first + rows], every=RowFlag.LOGITS, rows_per_pass=rows)
            bar.update(min(rows, len(tokens) - first))
    partial = arguments.output.with_name(arguments.output.name + ".partial.npy")
    np.save(partial, logits_of(parts))
    os.replace(partial, arguments.output)


def read_tokens(path: Path) -> list[int]:
    """Raises :class:`HostError` for what is no one-dimensional array of integers."""
    try:
        tokens = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise HostError(f"{path} does not exist; give a .npy file of token ids") from None
    except (OSError, ValueError, EOFError) as error:
        raise HostError(f"{path} can't be read as .npy: {error}") from None
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not len(tokens):
        raise HostError(f"{path} must hold a one-dimensional array of at least one integer")
    return [int(t) for t in tokens]
