"""Output folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from hls_py.errors import TellmeError


def replace_folder(target: Path, fill: Callable[[Path], None], ours: Collection[str]) -> None:
    """Call ``fill`` with a new folder beside ``target`` and put it in ``target``'s place when it returns.

    ``target`` may exist if it is empty or holds nothing but files called as in ``ours``; anything else is someone's
    data and refused with :class:`TellmeError`. When ``fill`` raises, ``target`` stays as it was and nothing is left
    beside it.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not target.is_dir():
        raise TellmeError(f"{target} exists and is not a folder")
    if target.is_dir():
        foreign = sorted(entry.name for entry in target.iterdir() if entry.name not in ours or not entry.is_file())
        if foreign:
            raise TellmeError(f"{target} holds {foreign[0]!r}, which this command doesn't write; "
                              "give an empty or new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        made = staging / target.name
        made.mkdir()
        fill(made)
        old = staging / f"{target.name}.old"
        if target.exists():
            target.rename(old)
        try:
            made.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a file that other processes see whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
