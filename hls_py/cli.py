"""``tellme-hls``: from a model folder and a board to a design, its image and its simulator."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType, ModuleType
from typing import NoReturn

from hls_py.errors import TellmeError
from hls_py.progress import PROGRAM

COMMANDS = {
    "generate": "write the Verilog of the design for a board, and a model's program and weight image for it",
    "pack": "write a model's program and weight image for a design that exists",
    "simulator": "compile a generated design with Verilator into libtellme_sim.so",
    "prepare": "make or find the image (and simulator) of a model on a board; prints their paths as one line of JSON",
    "tokenizer": "make or find the tokenizer of a GGUF file as a model folder's files; prints its path as JSON",
    "random-model": "write a model of given dimensions with random ternary weights",
    "check": "tell what a model is and what each board can do with it, or all that isn't supported",
    "inspect": "describe an image, or find its first difference from another one or from its model",
    "verify": "compare golden with transformers or llama.cpp on a text",
}
"""Each is a module of hls_py.commands, imported when it is asked for: some need packages that take their time."""

INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """One line for a mistake; argparse would print the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command that ``argv`` names."""
    top = _Parser(prog=PROGRAM, description=__doc__.split(": ", 1)[1] if __doc__ else None)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, summary in COMMANDS.items():
        of_command = commands.add_parser(name, help=summary)
        if name in argv:
            module = _module(name)
            of_command.description = module.__doc__
            module.add_arguments(of_command)
    return top


def _module(command: str) -> ModuleType:
    return import_module(f"hls_py.commands.{command.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after one line on stderr, 2 for wrong arguments, 130 when interrupted."""
    given = sys.argv[1:] if argv is None else argv
    arguments = parser(given).parse_args(given)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        _module(arguments.command).run(arguments)
    except TellmeError as error:
        return _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Leave as an exception does, so that nothing half-written stays behind."""
    sys.exit(128 + number)


def _fail(message: str) -> int:
    start = "\r\x1b[K" if sys.stderr.isatty() else ""  # over a progress bar that hasn't ended
    print(f"{start}{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
