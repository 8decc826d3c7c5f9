"""run: continue a prompt, streaming the text as the accelerator produces it."""

from __future__ import annotations

import argparse

from host.commands.common import add_sampling, add_target, sampling_of, show_speed, target_of, write
from host.devices.open import open_accelerator
from host.session import Session
from host.text import Streamer, Text

HELP = "continue a prompt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what the model continues")
    add_sampling(parser)


def run(arguments: argparse.Namespace) -> None:
    text, sampling = Text(arguments.model, arguments.cache), sampling_of(arguments)
    prompt, stop_tokens = text.encode(arguments.prompt), text.stop_tokens
    accelerator = open_accelerator(target_of(arguments))
    session = Session(accelerator, sampling, stop_tokens)
    streamer = Streamer(text, prompt)
    tokens = session.generate(prompt, arguments.max_tokens)
    write(arguments.prompt)
    try:
        for token in tokens:
            write(streamer.push(token))
    finally:
        write(streamer.finish() + "\n")
    if not arguments.quiet:
        show_speed(session.speed, accelerator.device.clock_hz)
