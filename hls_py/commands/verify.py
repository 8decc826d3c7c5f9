"""verify: golden against Hugging Face transformers in float32 on a text: argmax agreement, perplexity, logit error."""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hls_py.commands.common import add_model, add_quiet
from hls_py.errors import TellmeError
from hls_py.progress import Progress

HELP = "compare golden with transformers on a text"


@dataclass(frozen=True)
class Agreement:
    """How far two models' logits [positions, vocabulary] agree on a text."""

    positions: int
    argmax_agreement: float
    nats_per_token: float
    """Of golden."""
    oracle_nats_per_token: float
    perplexity_ratio: float
    """Golden's perplexity over the oracle's."""
    mean_logit_error: float
    """Mean |difference| over the standard deviation of the oracle's logits."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="text to score (.txt or .txt.xz)")
    parser.add_argument("--positions", type=int, default=2048, metavar="N",
                        help="positions compared (default: %(default)s)")
    parser.add_argument("--length", type=int, default=256, metavar="N",
                        help="tokens a sequence; each starts anew (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures as JSON")
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    from hls_py.oracles.transformers_model import transformers_logits
    report = Progress(arguments.quiet)
    tokens = read_tokens(arguments.model, arguments.text, arguments.positions, arguments.length)
    report("the oracle's logits (transformers, float32)")
    theirs = transformers_logits(arguments.model, tokens)
    report("golden's logits")
    ours = golden_logits(arguments.model, tokens, arguments.quiet)
    found = compare(ours, theirs, tokens)
    print(f"positions                {found.positions}\n"
          f"argmax agreement         {100 * found.argmax_agreement:.2f} %\n"
          f"nats a token             golden {found.nats_per_token:.5f}, "
          f"transformers {found.oracle_nats_per_token:.5f}\n"
          f"perplexity               golden {np.exp(found.nats_per_token):.4f}, "
          f"transformers {np.exp(found.oracle_nats_per_token):.4f}: {100 * (found.perplexity_ratio - 1):+.3f} %\n"
          f"mean error of the logits {100 * found.mean_logit_error:.2f} % of their standard deviation")
    if arguments.output:
        arguments.output.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")


def read_tokens(model: Path, text: Path, positions: int, length: int) -> np.ndarray:
    """Token ids [sequences, length] from evenly spread places of ``text``.

    Raises :class:`TellmeError` when files are missing or the text is too short.
    """
    from tokenizers import Tokenizer
    if positions < 1 or length < 2:
        raise TellmeError(f"{positions} positions in sequences of {length}: at least 1 position, 2 tokens a sequence")
    path = model / "tokenizer.json"
    if not path.is_file():
        raise TellmeError(f"{model} has no tokenizer.json")
    try:
        content = text.read_bytes()
        plain = (lzma.decompress(content) if text.suffix == ".xz" else content).decode("utf-8")
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise TellmeError(f"{text} can't be read: {error}") from None
    ids = np.array(Tokenizer.from_file(str(path)).encode(plain).ids, np.int64)
    count = -(-positions // length)
    if len(ids) < count * length:
        raise TellmeError(f"{text} has {len(ids)} tokens; {count * length} are needed")
    starts = np.linspace(0, len(ids) - length, count).astype(int)
    return np.stack([ids[s:s + length] for s in starts])


def golden_logits(model: Path, tokens: np.ndarray, quiet: bool) -> np.ndarray:
    """float32 [sequences, n, vocabulary] from the host's golden device, a subprocess: nothing here imports the host."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "tokens.npy", Path(folder) / "logits.npy"
        np.save(given, tokens)
        command = [sys.executable, "-m", "host.cli", "logits", "--device", "golden", "--model", str(model), "--tokens",
                   str(given), "-o", str(made), *(["--quiet"] if quiet else [])]
        if subprocess.run(command).returncode:
            raise TellmeError("golden could not run this model")
        return np.load(made)


def compare(ours: np.ndarray, theirs: np.ndarray, tokens: np.ndarray) -> Agreement:
    """Figures over all positions; nats over those that have a next token."""
    def nats(logits: np.ndarray) -> float:
        x = logits[:, :-1].astype(np.float64)
        x = x - x.max(axis=-1, keepdims=True)
        log_sum = np.log(np.exp(x).sum(axis=-1))
        chosen = np.take_along_axis(x, tokens[:, 1:, None], axis=-1)[..., 0]
        return float((log_sum - chosen).mean())

    mine, their = nats(ours), nats(theirs)
    return Agreement(
        positions=tokens.size, argmax_agreement=float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
        nats_per_token=mine, oracle_nats_per_token=their, perplexity_ratio=float(np.exp(mine - their)),
        mean_logit_error=float(np.abs(ours - theirs).mean() / theirs.std()))
