#!/usr/bin/env python3
"""Emit blocks and let Verilator lint them: lint_rtl.py [BLOCK …] (all of tools/blocks.yaml unless named)."""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hls_py.emit.verilator import LINT_WAIVERS, tool_environment, verilator_command, write_sources
from rtl.streams.shared_module import emit_design
from tools import known_blocks


def lint(block: known_blocks.KnownBlock, designs: dict) -> str:
    """Verilator's complaints about a block, empty if there are none."""
    with tempfile.TemporaryDirectory() as folder:
        design = emit_design(block.build(designs), block.name)
        command = [verilator_command(), "--lint-only", "-Wall", *LINT_WAIVERS, "-Wno-UNUSEDPARAM", "-Wno-EOFNEWLINE",
                   "-Wno-PROCASSINIT",  # Amaranth gives every register its reset value as initial value, too
                   "--top-module", block.name, *map(str, write_sources(design, Path(folder)))]
        return subprocess.run(command, env=tool_environment(), capture_output=True, text=True).stderr


def main() -> None:
    blocks, designs, _ = known_blocks.load()
    bad = 0
    for block in known_blocks.chosen(blocks, sys.argv[1:]):
        complaints = lint(block, designs)
        print(f"{block.name}: {complaints or 'clean'}")
        bad += bool(complaints)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
