"""logits: teacher-forced logits of every position of a token file, as float32 [n, vocabulary].

Token ids [sequences, n] give [sequences, n, vocabulary], each sequence by itself.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from host.commands.common import add_target, positive, target_of
from host.devices.golden import GoldenDevice
from host.devices.open import open_accelerator
from host.errors import HostError
from host.sequences import SequencePool, logits_of
from rtl.contract.pass_descriptor import RowFlag

FLOAT_PARTS = ("queries", "kv", "attention_weights", "head")
HELP = "teacher-forced logits of a token file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--tokens", type=Path, required=True, metavar="FILE",
                        help="token ids: .npy of integers, [n] or [sequences, n]")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where to write the .npy")
    parser.add_argument("--rows-per-pass", type=positive, metavar="R",
                        help="rows of the prompt a pass (default: as many as fit)")
    golden = parser.add_argument_group("golden only")
    golden.add_argument("--float", nargs="+", choices=FLOAT_PARTS, default=[], metavar="PART", dest="float_parts",
                        help=f"compute in float what the hardware has in int8: {', '.join(FLOAT_PARTS)}")
    golden.add_argument("--blocks", type=Path, metavar="FILE",
                        help="write what every block of every layer puts out (.npz, arrays '<layer>.<block>')")


def run(arguments: argparse.Namespace) -> None:
    tokens = read_tokens(arguments.tokens)
    output: Path = arguments.output
    check_outputs(output, arguments.blocks)
    if arguments.device != "golden" and (arguments.float_parts or arguments.blocks):
        raise HostError("--float and --blocks are for --device golden")
    accelerator = open_accelerator(replace(target_of(arguments), float_parts=tuple(arguments.float_parts)))
    recorder = None
    if arguments.blocks and isinstance(accelerator.device, GoldenDevice):
        recorder = accelerator.device.record()
    pool = SequencePool(accelerator)
    rows = accelerator.max_rows if arguments.rows_per_pass is None else arguments.rows_per_pass
    sequences = np.atleast_2d(tokens).tolist()
    sequence = pool.open()
    for ids in sequences:
        pool.check(sequence, ids, rows)
    logits = []
    with tqdm(total=tokens.size, unit="token", disable=arguments.quiet or None) as bar:
        for ids in sequences:
            parts = []
            for first in range(0, len(ids), rows):
                parts += pool.feed(sequence, ids[first:first + rows], every=RowFlag.LOGITS, rows_per_pass=rows)
                bar.update(min(rows, len(ids) - first))
            pool.rewind(sequence, 0)
            logits.append(logits_of(parts))
    write_array(output, logits[0] if tokens.ndim == 1 else np.stack(logits))
    if recorder:
        write_array(arguments.blocks, recorder.arrays())


def check_outputs(*paths: Path | None) -> None:
    """:class:`HostError` for one that can't become a file, before the work that would be lost."""
    for path in filter(None, paths):
        if path.is_dir() or not path.parent.is_dir():
            raise HostError(f"{path} can't be written; give a file in a folder that exists")


def write_array(path: Path, array: np.ndarray | dict[str, Any]) -> None:
    """``path`` is there with all of ``array`` (.npy, or .npz of several), or as it was before."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            if isinstance(array, dict):
                np.savez(file, **array)
            else:
                np.save(file, array)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_tokens(path: Path) -> np.ndarray:
    """Raises :class:`HostError` for what is no array of integers of one or two dimensions."""
    try:
        tokens = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise HostError(f"{path} does not exist; give a .npy file of token ids") from None
    except (OSError, ValueError, EOFError) as error:
        raise HostError(f"{path} can't be read as .npy: {error}") from None
    if (not isinstance(tokens, np.ndarray) or tokens.ndim not in (1, 2) or tokens.dtype.kind not in "iu"
            or not tokens.size):
        raise HostError(f"{path} must hold integers, [n] or [sequences, n], at least one")
    return tokens
