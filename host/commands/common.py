"""Arguments and output that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from host.devices.open import DEVICES, Target
from host.sampler import Sampling
from host.session import Speed

DEMO_MODEL = Path(__file__).resolve().parents[2] / "examples" / "demo_model"


def add_target(parser: argparse.ArgumentParser, device: str = "verilator") -> None:
    parser.add_argument("--device", choices=DEVICES, default=device,
                        help="verilator: the generated RTL, simulated; golden: the bit-exact NumPy model "
                             "(default: %(default)s)")
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, metavar="FOLDER",
                        help="model folder in Hugging Face form (default: the shipped demo model)")
    parser.add_argument("--board", metavar="NAME|FILE", help="board by name or .yaml file (default: simulation)")
    parser.add_argument("--memory", metavar="NAME", help="memory model of the board (default: what the board says)")
    parser.add_argument("--context", type=_positive, metavar="N", help="positions a sequence may have (default: the model's)")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where generated things are kept (default: build/)")
    parser.add_argument("--quiet", action="store_true", help="no progress, no figures")


def target_of(arguments: argparse.Namespace) -> Target:
    return Target(arguments.device, arguments.model, arguments.board, arguments.memory, arguments.cache,
                  arguments.context, arguments.quiet)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-tokens", type=int, default=64, metavar="N", help="tokens to generate (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T",
                        help="0 is greedy (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=40, metavar="K", help="0: all tokens (default: %(default)s)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="applies after top-k (default: %(default)s)")
    parser.add_argument("--seed", type=int, metavar="S", help="of the sampling (default: different every time)")


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    return Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)


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


def write(text: str) -> None:
    """Stream ``text`` to stdout at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
