"""``tellme``: run a ternary language model on an accelerator, simulated or golden."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from host.commands import account, bench, chat, logits, run, tokens
from host.commands.common import PROGRAM, show_error
from host.errors import HostError

COMMANDS = {"run": run, "chat": chat, "logits": logits, "tokens": tokens, "bench": bench, "account": account}
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """One line for a mistake; argparse would print the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog=PROGRAM, description=_description(sys.modules[__name__]))
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=_description(module),
                                                 formatter_class=argparse.RawDescriptionHelpFormatter))
    return top


def _description(module: ModuleType) -> str:
    """The docstring, without the command's name before it."""
    text = (module.__doc__ or "").split(": ", 1)[1].strip()
    return text[0].upper() + text[1:]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after one line on stderr, 2 for wrong arguments, 130 when interrupted."""
    arguments = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the model's characters
    try:
        COMMANDS[arguments.command].run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        show_error("out of memory; use a smaller board, model or token file")
        return 1
    except HostError as error:
        if str(error):
            show_error(str(error))
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        show_error(f"{where}{error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        start = "\n" if sys.stderr.isatty() else ""  # behind the terminal's ^C
        print(f"{start}{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
