"""``tellme-hls``: from a model folder and a board to a design, its image and its simulator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from hls_py.commands import generate, pack, prepare, simulator
from hls_py.errors import TellmeError

PROGRAM = "tellme-hls"
COMMANDS = {"generate": generate, "pack": pack, "simulator": simulator, "prepare": prepare}
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """One line for a mistake; argparse would print the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog=PROGRAM, description=__doc__.split(": ", 1)[1] if __doc__ else None)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=module.__doc__))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after one line on stderr, 2 for wrong arguments, 130 when interrupted."""
    arguments = parser().parse_args(argv)
    try:
        COMMANDS[arguments.command].run(arguments)
    except TellmeError as error:
        return _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _fail(message: str) -> int:
    start = "\r\x1b[K" if sys.stderr.isatty() else ""  # over a progress bar that hasn't ended
    print(f"{start}{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
