"""verify: golden against Hugging Face transformers (float32) or llama.cpp on a text: argmax, KL, perplexity, layers."""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hls_py.commands.common import add_model_asked_about, add_quiet
from hls_py.errors import TellmeError
from hls_py.golden.machine.precision import ATTENTION_OPERANDS, PARTS
from hls_py.model_import.config import read_config
from hls_py.oracles.agreement import (
    Agreement,
    BlockError,
    compare,
    compare_blocks,
    first_divergence,
    nats_of,
    perplexity_difference,
)
from hls_py.oracles.agreement_plot import draw
from hls_py.oracles.oracle import ORACLES, Blocks, choose, open_layered_oracle, open_oracle
from hls_py.progress import Progress

TOLERANCE = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_asked_about(parser)
    parser.add_argument("--against", choices=ORACLES, default=None,
                        help="whose model to compare with (default: llama.cpp for a .gguf file that it can run, if "
                             "xllamacpp is installed; else transformers)")
    parser.add_argument("--text", type=Path, metavar="FILE",
                        help="text to score (.txt or .txt.xz; default: random tokens, which say nothing of perplexity)")
    parser.add_argument("--positions", type=int, default=2048, metavar="N",
                        help="positions compared (default: %(default)s)")
    parser.add_argument("--length", type=int, default=256, metavar="N",
                        help="tokens a sequence; each starts anew (default: %(default)s)")
    parser.add_argument("--layers", action="store_true",
                        help="compare what every block of every layer puts out, and name the first that differs "
                             "(transformers only)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="X",
                        help="mean error of a block, in deviations of its rows, that counts as a difference "
                             "(default: %(default)s; rounding flips alone give less, a wrong block 1 and more)")
    parser.add_argument("--decisions", action="store_true",
                        help=f"what each int8 decision costs: golden again with {', '.join(PARTS)} in float")
    parser.add_argument("--board", metavar="NAME|FILE", help="board whose design golden has (default: simulation)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a figure (.png)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures as JSON")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    for path in filter(None, (arguments.plot, arguments.output)):
        if path.is_dir() or not path.parent.is_dir():
            raise TellmeError(f"{path} can't be written; give a file in a folder that exists")
    if not arguments.tolerance > 0:
        raise TellmeError(f"a tolerance of {arguments.tolerance}: give a number above 0")
    report = Progress(arguments.quiet)
    model: Path = arguments.model
    which, why = choose(model, arguments.against, arguments.layers)
    tokens = (read_tokens(model, arguments.text, arguments.positions, arguments.length) if arguments.text
              else random_tokens(model, arguments.positions, arguments.length))
    report(f"the logits of {which}, {why}")
    theirs, their_blocks, name = oracle_answers(which, model, arguments.i2s_layout, tokens, arguments.layers)
    report("golden's logits")
    golden = Golden(model, arguments.board, arguments.i2s_layout, arguments.quiet)
    ours, our_blocks = golden.run(tokens, blocks=arguments.layers)
    found = compare(ours, theirs, tokens)
    errors = compare_blocks(our_blocks, their_blocks, arguments.tolerance)
    print(f"against                  {name}, {why}")
    print_agreement(found, which, bool(arguments.text))
    if errors:
        print_blocks(errors, arguments.tolerance, arguments.length)
    costs = {}
    if arguments.decisions:
        costs = decision_costs(golden, tokens, theirs, found, report)
        print_decisions(costs, found)
    if arguments.plot:
        draw(arguments.plot, model.name, nats_of(ours, tokens), nats_of(theirs, tokens), errors, which)
    if arguments.output:
        written = {"against": name, **asdict(found), "blocks": [asdict(error) for error in errors],
                   "decisions": {name: asdict(cost) for name, cost in costs.items()}}
        arguments.output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    divergence = first_divergence(errors, arguments.tolerance)
    if divergence:
        raise TellmeError(f"golden and {which} part at {describe(divergence, arguments.length)}")


# ---- tokens ---------------------------------------------------------------------------------------------------------

def read_tokens(model: Path, text: Path, positions: int, length: int) -> np.ndarray:
    """Token ids [sequences, length] from evenly spread places of ``text``.

    Raises :class:`TellmeError` when files are missing or the text is too short.
    """
    _check_counts(positions, length)
    try:
        content = text.read_bytes()
        plain = (lzma.decompress(content) if text.suffix == ".xz" else content).decode("utf-8")
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise TellmeError(f"{text} can't be read: {error}") from None
    ids = token_ids(model, plain)
    count = -(-positions // length)
    if len(ids) < count * length:
        raise TellmeError(f"{text} has {len(ids)} tokens; {count * length} are needed")
    starts = np.linspace(0, len(ids) - length, count).astype(int)
    return np.stack([ids[s:s + length] for s in starts])


def token_ids(model: Path, text: str) -> np.ndarray:
    """[n] by the model's own tokenizer, in whatever form it has one. That is the host's, a subprocess: nothing here
    imports it. Raises :class:`TellmeError` when there is none."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "text.txt", Path(folder) / "tokens.npy"
        given.write_bytes(text.encode())
        done = subprocess.run([sys.executable, "-m", "host.cli", "tokens", "--model", str(model), "--text", str(given),
                               "-o", str(made)], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            said = (done.stderr.splitlines() or ["the model's tokenizer can't be used"])[-1]
            raise TellmeError(f"{said.split('error: ', 1)[-1]}; leave out --text for random tokens")
        return np.asarray(np.load(made))


def random_tokens(model: Path, positions: int, length: int) -> np.ndarray:
    """Token ids [sequences, length], the same every time."""
    from hls_py.model_import.model import Model
    _check_counts(positions, length)
    vocabulary = read_config(model).vocabulary if model.is_dir() else Model(model).config.vocabulary
    return np.random.default_rng(1).integers(0, vocabulary, (-(-positions // length), length))


def _check_counts(positions: int, length: int) -> None:
    if positions < 1 or length < 2:
        raise TellmeError(f"{positions} positions in sequences of {length}: at least 1 position, 2 tokens a sequence")


# ---- the oracle -----------------------------------------------------------------------------------------------------

def oracle_answers(which: str, model: Path, i2s_layout: str | None, tokens: np.ndarray,
                   layers: bool) -> tuple[np.ndarray, Blocks, str]:
    """Its logits and blocks (if asked for), and its name; it isn't kept, for it may be large."""
    if layers:
        watched = open_layered_oracle(model, i2s_layout)
        return *watched.logits_and_blocks(tokens), watched.name
    oracle = open_oracle(which, model, i2s_layout)
    return oracle.logits(tokens), {}, oracle.name


# ---- golden ---------------------------------------------------------------------------------------------------------

class Golden:
    """A model on the host's golden device, a subprocess: nothing here imports the host."""

    def __init__(self, model: Path, board: str | None = None, i2s_layout: str | None = None, quiet: bool = True):
        self.options = ["--device", "golden", "--model", str(model), *(["--board", board] if board else []),
                        *(["--i2s-layout", i2s_layout] if i2s_layout else []), *(["--quiet"] if quiet else [])]

    def run(self, tokens: np.ndarray, float_parts: Sequence[str] = (),
            blocks: bool = False) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """float32 [sequences, n, vocabulary] of [sequences, n], and the blocks' outputs if they are asked for."""
        with tempfile.TemporaryDirectory() as folder:
            given, made, seen = (Path(folder) / name for name in ("tokens.npy", "logits.npy", "blocks.npz"))
            np.save(given, tokens)
            command = [sys.executable, "-m", "host.cli", "logits", *self.options, "--tokens", str(given),
                       "-o", str(made), *(["--float", *float_parts] if float_parts else []),
                       *(["--blocks", str(seen)] if blocks else [])]
            if subprocess.run(command).returncode:
                raise TellmeError("golden could not run this model")
            found: dict[str, np.ndarray] = {}
            if blocks:
                with np.load(seen) as file:
                    found = {name: file[name] for name in file.files}
            return np.load(made), found


def golden_logits(model: Path, tokens: np.ndarray, quiet: bool) -> np.ndarray:
    """float32 [sequences, n, vocabulary]."""
    return Golden(model, quiet=quiet).run(tokens)[0]


def decision_costs(golden: Golden, tokens: np.ndarray, theirs: np.ndarray, hardware: Agreement,
                   report: Progress) -> dict[str, Agreement]:
    """Golden with each int8 decision in float, with both operands of attention, and with all."""
    costs = {}
    wanted = {**{part: (part,) for part in PARTS}, "queries and kv": ATTENTION_OPERANDS, "all": PARTS}
    for name, parts in wanted.items():
        report(f"golden with {name} in float")
        costs[name] = compare(golden.run(tokens, parts)[0], theirs, tokens)
    return costs


# ---- what is printed ------------------------------------------------------------------------------------------------

def print_agreement(found: Agreement, oracle: str, is_text: bool) -> None:
    print(f"positions                {found.positions}\n"
          f"argmax agreement         {100 * found.argmax_agreement:.2f} %\n"
          f"KL divergence            {found.kl_nats:.6f} nats\n"
          f"mean error of the logits {100 * found.mean_logit_error:.2f} % of their standard deviation")
    if is_text:
        difference = perplexity_difference(found.sequence_nats, found.oracle_sequence_nats)
        print(f"nats a token             golden {found.nats_per_token:.5f}, "
              f"{oracle} {found.oracle_nats_per_token:.5f}\n"
              f"perplexity               golden {np.exp(found.nats_per_token):.4f}, "
              f"{oracle} {np.exp(found.oracle_nats_per_token):.4f}: {difference}")


def print_blocks(errors: list[BlockError], tolerance: float, length: int) -> None:
    print("\nlayer block                mean error   worst row")
    for e in errors:
        print(f"{e.layer:5} {e.block:20} {100 * e.mean:8.2f} % {100 * e.worst:8.2f} %  ({_row(e.worst_row, length)})")
    divergence = first_divergence(errors, tolerance)
    print(f"first beyond {100 * tolerance:g} %: " + (describe(divergence, length) if divergence else "none"))


def describe(error: BlockError, length: int) -> str:
    row = error.worst_row if error.first_row is None else error.first_row
    return (f"layer {error.layer}, {error.block}, {_row(row, length)}: mean error {100 * error.mean:.1f} % of the "
            f"deviation")


def _row(row: int, length: int) -> str:
    return f"sequence {row // length} position {row % length}"


def print_decisions(costs: dict[str, Agreement], hardware: Agreement) -> None:
    print("\nin float             perplexity   what int8 costs       argmax    mean error of the logits")
    for name, cost in (("nothing (hardware)", hardware), *costs.items()):
        difference = perplexity_difference(hardware.sequence_nats, cost.sequence_nats)
        print(f"{name:20} {np.exp(cost.nats_per_token):10.4f}   {'' if cost is hardware else str(difference):20}  "
              f"{100 * cost.argmax_agreement:5.2f} %   {100 * cost.mean_logit_error:5.2f} %")
    if len(hardware.sequence_nats) > 1:
        print("±: the standard error of the mean over the sequences")
