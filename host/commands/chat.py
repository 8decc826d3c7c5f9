"""chat: several turns on one KV cache; an empty line or end of input ends it."""

from __future__ import annotations

import argparse
import sys

from host.commands.common import add_sampling, add_target, sampling_of, show_speed, target_of, write
from host.devices.open import open_accelerator
from host.session import Session
from host.text import Streamer, Text

HELP = "several turns on one KV cache"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add_sampling(parser)


def run(arguments: argparse.Namespace) -> None:
    text = Text(arguments.model)
    accelerator = open_accelerator(target_of(arguments))
    session = Session(accelerator, sampling_of(arguments), text.stop_tokens)
    if not arguments.quiet:
        print(f"context of {accelerator.max_context} tokens; an empty line ends the conversation", file=sys.stderr)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            break
        if not line:
            break
        streamer = Streamer(text)
        for token in session.generate(text.encode(line), arguments.max_tokens):
            write(streamer.push(token))
        write(streamer.finish() + "\n")
    if not arguments.quiet:
        show_speed(session.speed, accelerator.device.clock_hz)
