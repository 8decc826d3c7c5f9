"""What a command line tells of its work, on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PROGRAM = "tellme-hls"
WORTH_TELLING_SECONDS = 5


class Progress:
    """Lines that begin with the program's name; nothing at all if ``quiet``.

    ``bars`` says whether progress bars are wanted: on a terminal only.
    """

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.bars = not quiet and sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if not self.quiet:
            print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)

    @contextmanager
    def during(self, text: str) -> Iterator[None]:
        """Tell ``text`` first and, on a terminal, the seconds since then; elsewhere in the end if there were many."""
        start, ended = time.monotonic(), threading.Event()

        def count() -> None:
            while not ended.wait(1):
                self._overwrite(f"{text} … {time.monotonic() - start:.0f} s")

        counter = threading.Thread(target=count, daemon=True) if self.bars else None
        self(text) if counter is None else self._overwrite(f"{text} …")
        if counter is not None:
            counter.start()
        try:
            yield
        finally:
            ended.set()
            if counter is not None:
                counter.join()
        seconds = time.monotonic() - start
        if counter is not None:
            self._overwrite(f"{text}: {seconds:.1f} s\n")
        elif seconds > WORTH_TELLING_SECONDS:
            self(f"{text}: {seconds:.0f} s")

    def _overwrite(self, text: str) -> None:
        print(f"\r\x1b[K{PROGRAM}: {text}", end="", file=sys.stderr, flush=True)
