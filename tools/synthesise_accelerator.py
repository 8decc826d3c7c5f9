#!/usr/bin/env python3
"""The accelerator of tools/blocks.yaml's board through Yosys in one run, as it was emitted: nothing cut, not flattened.

    synthesise_accelerator.py

`make synth` says more (levels, what each block takes) and sooner; this shows that the design as a whole goes through
`synth_xilinx`, and what it takes when each module is mapped by itself. Over an hour of one core.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hls_py.emit.accelerator import TOP
from hls_py.emit.verilator import build_root
from tools import known_blocks, netlist, yosys


def main() -> None:
    board, verilog = known_blocks.accelerator()
    folder = build_root() / "synth" / "accelerator"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(verilog, folder)
    script = yosys.SYNTHESIS.format(sources=verilog.name, options="", top=TOP) + "tee -q -o cells.json stat -json\n"
    print(f"{yosys.heading(board)}; {folder}/yosys.log says how far it is …", flush=True)
    start = time.monotonic()
    found = yosys.run(folder, script, "cells.json", f"the accelerator of {board.name}")
    modules = {name.removeprefix("\\") for name in found["modules"]}
    cells = Counter({cell: n for cell, n in found["design"]["num_cells_by_type"].items() if cell not in modules})
    used, has = netlist.resources(cells, TOP), board.resources or {}
    print(f"{len(modules)} modules, {time.monotonic() - start:.0f} s")
    for field, title in netlist.TITLES.items():
        of_part = f" of {has[field]:,}" if field in has else ""
        print(f"{title:>12} {used[field]:>9,g}{of_part}")


if __name__ == "__main__":
    main()
