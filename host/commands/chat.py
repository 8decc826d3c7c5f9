"""chat: several turns on one KV cache; an empty line or end of input ends it.

What can't be run (the context is full, say) is refused in one line, and the conversation goes on.
"""

from __future__ import annotations

import argparse
import sys

from host.commands.common import add_sampling, add_target, sampling_of, show_error, show_speed, target_of, write
from host.conversation import Conversation
from host.devices.open import open_accelerator
from host.errors import HostError
from host.session import Session
from host.text import Streamer, Text

HELP = "several turns on one KV cache"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    parser.add_argument("--plain", action="store_true", help="no chat template: the model continues what is said")
    add_sampling(parser)


def run(arguments: argparse.Namespace) -> None:
    text, sampling = Text(arguments.model, arguments.cache), sampling_of(arguments)
    stop_tokens = text.stop_tokens
    accelerator = open_accelerator(target_of(arguments))
    session = Session(accelerator, sampling, stop_tokens)
    if not arguments.quiet:
        print(f"context of {accelerator.max_context} tokens; an empty line ends the conversation", file=sys.stderr)
    conversation = Conversation(text, arguments.system, template=not arguments.plain)
    refused = False
    while line := _line():
        try:
            _turn(session, text, conversation, line, arguments.max_tokens)
        except HostError as error:
            show_error(str(error))
            refused = True
    if not arguments.quiet:
        show_speed(session.speed, accelerator.device.clock_hz)
    if refused:
        raise HostError("")  # it has been said


def _turn(session: Session, text: Text, conversation: Conversation, line: str, max_tokens: int) -> None:
    turn = conversation.ask(line)
    if turn.from_start:
        session.restart()
    streamer = Streamer(text, turn.tokens)
    try:
        tokens = session.generate(turn.tokens, max_tokens)
    except HostError:
        if turn.from_start:
            conversation.start_over()
        raise
    answer, fed = "", False
    try:
        for token in tokens:
            fed = True
            answer += _shown(streamer.push(token))
        fed = True
    finally:
        answer += _shown(streamer.finish())
        write("\n")
        if fed:
            conversation.answered(line, answer)


def _shown(text: str) -> str:
    write(text)
    return text


def _line() -> str:
    """What the user says; empty at the end of input."""
    terminal = sys.stdin.isatty()
    try:
        return input("> " if terminal else "")
    except EOFError:
        if terminal:
            write("\n")
        return ""
    except UnicodeDecodeError:
        raise HostError("the input is not valid UTF-8") from None
