"""Arguments and output that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from host.devices.open import DEVICES, Target
from host.sampler import Sampling
from host.session import Speed

PROGRAM = "tellme"
DEMO_MODEL = Path(__file__).resolve().parents[2] / "examples" / "demo_model"


def add_target(parser: argparse.ArgumentParser, device: str = "verilator") -> None:
    parser.add_argument("--device", choices=DEVICES, default=device,
                        help="verilator: the generated RTL, simulated; golden: the bit-exact NumPy model "
                             "(default: %(default)s)")
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, metavar="FOLDER|FILE",
                        help="model folder in Hugging Face form, or a .gguf file (default: the shipped demo model)")
    parser.add_argument("--i2s-layout", choices=("x86", "arm"), default=None,
                        help="where a .gguf file with I2_S weights was made, if its weights don't tell")
    parser.add_argument("--board", metavar="NAME|FILE", help="board by name or .yaml file (default: simulation)")
    parser.add_argument("--memory", metavar="NAME", help="memory model of the board (default: what the board says)")
    parser.add_argument("--context", type=positive, metavar="N",
                        help="positions a sequence may have (default: the model's)")
    parser.add_argument("--cache", type=Path, metavar="FOLDER",
                        help="where designs, images and simulators are kept (default: build/ of the project)")
    parser.add_argument("--quiet", action="store_true", help="no progress, no figures")


def target_of(arguments: argparse.Namespace) -> Target:
    return Target(arguments.device, arguments.model, arguments.board, arguments.memory, arguments.cache,
                  arguments.context, arguments.quiet, arguments.i2s_layout)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-tokens", type=zero_or_more, default=64, metavar="N",
                        help="tokens to generate at most (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T",
                        help="0 always takes the most likely token (default: %(default)s)")
    parser.add_argument("--top-k", type=zero_or_more, default=40, metavar="K",
                        help="choose among the K most likely tokens, 0: among all (default: %(default)s)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P",
                        help="and of those among the fewest that hold P of the probability (default: %(default)s)")
    parser.add_argument("--seed", type=zero_or_more, metavar="S",
                        help="the same seed gives the same text (default: another every time)")


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    """Raises :class:`HostError` naming the setting that can't be used."""
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)
    sampling.check()
    return sampling


def show_speed(speed: Speed, clock_hz: float) -> None:
    """Counted cycles as tokens a second at the design's clock, and how fast the simulation ran."""
    parts = []
    for what, tokens, cycles in (("prompt", speed.prompt_tokens, speed.prompt_cycles),
                                 ("generated", speed.tokens, speed.cycles)):
        if tokens and cycles and clock_hz:
            parts.append(f"{what}: {tokens} tokens, {cycles / tokens:,.0f} cycles a token = "
                         f"{tokens * clock_hz / cycles:,.0f} tokens/s at {clock_hz / 1e6:.0f} MHz")
    if speed.seconds and speed.cycles + speed.prompt_cycles:
        rate = (speed.cycles + speed.prompt_cycles) / speed.seconds
        parts.append(f"simulated at {rate:,.0f} cycles/s")
    elif speed.seconds:
        parts.append(f"{speed.prompt_tokens + speed.tokens} tokens in {speed.seconds:.1f} s (no cycles: golden model)")
    for part in parts:
        print(f"[{part}]", file=sys.stderr)


def show_error(message: str) -> None:
    """One line on stderr, over a progress bar that hasn't ended."""
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{start}{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)


def write(text: str) -> None:
    """Stream ``text`` to stdout at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def positive(text: str) -> int:
    return _at_least(1, text)


def zero_or_more(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
    return value
