#!/usr/bin/env python3
"""Let Verilator lint blocks of the emitted accelerator: lint_rtl.py [BLOCK …] (all of tools/blocks.yaml unless named).

A block is linted with everything that it holds; the waivers are those of rtl/lint_waivers.vlt.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hls_py.emit.verilator import tool_environment, verilator_command
from tools import known_blocks
from tools.design_hierarchy import BLOCK

WAIVERS = Path(__file__).resolve().parents[1] / "rtl" / "lint_waivers.vlt"


def lint(verilog: str) -> str:
    """Verilator's complaints, empty if there are none."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{BLOCK}.v").write_text(verilog)
        command = [verilator_command(), "--lint-only", "-Wall", "--top-module", BLOCK, str(WAIVERS), f"{BLOCK}.v"]
        return subprocess.run(command, env=tool_environment(), cwd=folder, capture_output=True, text=True).stderr


def main() -> None:
    names = known_blocks.chosen(sys.argv[1:])
    catalogue = known_blocks.load()
    bad = 0
    for row in names:
        for verilog in catalogue.verilog(row, whole=True):
            complaints = lint(verilog)
            print(f"{row}: {complaints or 'clean'}", flush=True)
            bad += bool(complaints)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
