"""``tellme``: run, chat, and logits on the real or simulated accelerator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from host.commands import bench, chat, logits, run
from host.errors import HostError

PROGRAM = "tellme"
COMMANDS = {"run": run, "chat": chat, "logits": logits, "bench": bench}
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """One line for a mistake; argparse would print the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog=PROGRAM, description=(__doc__ or "").split(": ", 1)[1])
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=module.__doc__))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after one line on stderr, 2 for wrong arguments, 130 when interrupted."""
    arguments = parser().parse_args(argv)
    try:
        COMMANDS[arguments.command].run(arguments)
    except HostError as error:
        if str(error):
            _fail(str(error))
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _fail(message: str) -> None:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
