#!/usr/bin/env python3
"""Resources of the accelerator's blocks on UltraScale+, as Yosys counts them, beside the budget.

    synthesise_block.py [BLOCK …]        the blocks of tools/blocks.yaml, all unless named
    synthesise_block.py --write FILE     all; the table as Markdown into FILE, between its marks
    synthesise_block.py --cached         without synthesis, what is known from before

A block is synthesised once for each kind of instance (flattened; what other rows name within it is a black box) and
multiplied; a block that hasn't changed comes from the cache in build/synth. docs/resources.md says how to read it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from hls_py.emit.verilator import build_root
from hls_py.output_folder import write_atomically
from tools import known_blocks, netlist, yosys
from tools.design_hierarchy import BLOCK, renamed

# Starting up and reading the cell library costs as much as a small block, so that several share a run, as modules that
# are flattened within but not into the top.
SCRIPT = yosys.SYNTHESIS.replace("{options}", "-flatten ") + "write_json netlist.json\n"
BATCH, BATCH_CHARACTERS = "batch", 900_000


@dataclass(frozen=True)
class Row:
    """A row of the table: what all instances of a block take together. ``counted``: what Yosys made of a block that is
    meant to be DSPs only."""

    name: str
    count: int
    used: netlist.Usage
    counted: netlist.Usage | None = None


def cache_file(name: str, verilog: str) -> Path:
    counting = Path(netlist.__file__).read_text()
    key = hashlib.sha256("\0".join([verilog, SCRIPT, yosys.version(), counting]).encode()).hexdigest()[:20]
    return build_root() / "synth" / f"{name}-{key}.json"


def from_cache(name: str, verilog: str) -> netlist.Usage | None:
    path = cache_file(name, verilog)
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    return netlist.Usage(**{**found, "path": tuple(found["path"])})


def batches(blocks: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """(name, Verilog) of blocks in runs of about BATCH_CHARACTERS."""
    batch: list[tuple[str, str]] = []
    for block in blocks:
        if batch and sum(len(text) for _, text in (*batch, block)) > BATCH_CHARACTERS:
            yield batch
            batch = []
        batch.append(block)
    if batch:
        yield batch


def synthesise(blocks: list[tuple[str, str]]) -> list[str]:
    """Put what one instance of each (name, Verilog) takes into the cache; returns what couldn't be counted."""
    folder = build_root() / "synth" / f"work-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    modules = [f"{BLOCK}_{n}" for n in range(len(blocks))]
    for module, (_, verilog) in zip(modules, blocks, strict=True):
        text = renamed(verilog, module).replace(f"module {module}(", f"(* keep_hierarchy *)\nmodule {module}(")
        (folder / f"{module}.v").write_text(text)
    instances = "\n".join(f"  (* keep *) {module} {module}_ ();" for module in modules)
    (folder / f"{BATCH}.v").write_text(f"module {BATCH}();\n{instances}\nendmodule\n")
    sources = " ".join(f"{module}.v" for module in (*modules, BATCH))
    found = yosys.run(folder, SCRIPT.format(sources=sources, top=BATCH), "netlist.json",
                      ", ".join(name for name, _ in blocks))
    problems = []
    for module, (name, verilog) in zip(modules, blocks, strict=True):
        try:
            used = netlist.usage(found, module)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        write_atomically(cache_file(name, verilog), json.dumps(asdict(used), indent=1) + "\n")
    shutil.rmtree(folder)
    return problems


def synthesise_missing(catalogue: known_blocks.Catalogue, names: list[str]) -> list[str]:
    problems = []
    missing = [(name, text) for name in names for text in catalogue.verilog(name) if from_cache(name, text) is None]
    runs = list(batches(missing))
    for n, batch in enumerate(runs):
        start = time.monotonic()
        print(f"[{n + 1}/{len(runs)}] {', '.join(name for name, _ in batch)} …", file=sys.stderr, flush=True)
        problems += synthesise(batch)
        print(f"[{n + 1}/{len(runs)}] {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return problems


def row(catalogue: known_blocks.Catalogue, name: str) -> Row:
    """What the cache knows of a block."""
    kinds = [(used, count) for text, count in catalogue.verilog(name).items()
             if (used := from_cache(name, text)) is not None]
    longest = max((used for used, _ in kinds), key=lambda used: used.levels)
    totals = {f: sum(count * getattr(used, f) for used, count in kinds) for f in netlist.COUNTED}
    used = netlist.Usage(**totals, levels=longest.levels, path=longest.path)
    count = sum(count for _, count in kinds)
    if name in catalogue.dsps:
        meant = netlist.Usage(lut=0, lut_memory=0, ff=0, dsp=count * catalogue.dsps[name], bram36=0, uram=0, levels=0,
                              path=())
        return Row(name, count, meant, used)
    return Row(name, count, used)


def notes(rows: list[Row]) -> list[str]:
    return [f"{r.name}: DSPs as meant; of their logic Yosys makes {r.counted.dsp:,} DSPs, {r.counted.lut:,} LUT and "
            f"{r.counted.ff:,} FF" for r in rows if r.counted]


def total(rows: list[Row]) -> dict[str, float]:
    return {f: sum(getattr(r.used, f) for r in rows) for f in netlist.COUNTED}


def table(catalogue: known_blocks.Catalogue, rows: list[Row], whole: bool) -> tuple[list[str], list[list[str]]]:
    """Titles and cells: blocks, and, if the rows are all there are, budget lines and the sum."""
    titles = ["block", "count", *netlist.TITLES.values(), "levels", "line"]
    cells = [[r.name, str(r.count), *(f"{getattr(r.used, f):,g}" for f in netlist.COUNTED), str(r.used.levels),
              catalogue.lines[r.name]] for r in rows]
    if whole:
        cells.append(["**sum**", "", *(f"{n:,g}" for n in total(rows).values()),
                      str(max((r.used.levels for r in rows), default=0)), ""])
    return titles, cells


def lines(catalogue: known_blocks.Catalogue, rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """What each line of the budget takes."""
    cells = []
    for line, budget in catalogue.budgets.items():
        used = total([r for r in rows if catalogue.lines[r.name] == line])
        cells.append([line, f"{used['lut']:,g}", f"{budget:,g}", f"{used['lut'] / budget:.0%}",
                      *(f"{used[f]:,g}" for f in netlist.COUNTED[1:])])
    used, budget = total(rows), sum(catalogue.budgets.values())
    cells.append(["**sum**", f"{used['lut']:,g}", f"{budget:,g}", f"{used['lut'] / budget:.0%}",
                  *(f"{used[f]:,g}" for f in netlist.COUNTED[1:])])
    if catalogue.board.resources:
        has = catalogue.board.resources
        cells.append(["part has", f"{has['lut']:,}", "", "", "", *(f"{has[f]:,}" for f in netlist.COUNTED[2:])])
    return ["line", "LUT", "budget", "of it", *list(netlist.TITLES.values())[1:]], cells


def markdown(titles: list[str], cells: list[list[str]]) -> str:
    align = ["---"] + ["--:"] * (len(titles) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [titles, align, *cells]) + "\n"


def show(titles: list[str], cells: list[list[str]]) -> None:
    shown = Table()
    for n, title in enumerate(titles):
        shown.add_column(title, justify="left" if n == 0 else "right")
    for line in cells:
        shown.add_row(*(cell.replace("**", "") for cell in line))
    Console(width=140).print(shown)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("block", nargs="*")
    options.add_argument("--write", type=Path, metavar="FILE", help="put the table where FILE has its marks")
    options.add_argument("--cached", action="store_true", help="show what is known, synthesise nothing")
    chosen = options.parse_args()
    names = known_blocks.chosen(chosen.block)
    catalogue = known_blocks.load()
    if chosen.cached:
        known = [name for name in names if all(from_cache(name, text) for text in catalogue.verilog(name))]
    elif problems := synthesise_missing(catalogue, names):
        sys.exit("\n".join(problems))
    else:
        known = names
    rows = [row(catalogue, name) for name in known]
    remarks = notes(rows)
    if missing := [name for name in names if name not in known]:
        remarks.append(f"Not counted, and not in the sums: {', '.join(missing)}")
    whole = not chosen.block
    for remark in remarks:
        print(remark)
    show(*table(catalogue, rows, whole))
    if whole:
        show(*lines(catalogue, rows))
    else:
        for r in rows:
            budget = catalogue.budgets[catalogue.lines[r.name]]
            print(f"{r.name}: {r.used.lut / budget:.0%} of the line {catalogue.lines[r.name]} ({budget:,g} LUT)")
            print(f"  longest path: {' → '.join(r.used.path)}")
    if chosen.write and whole:
        write_table(chosen.write, catalogue, rows, remarks)


BEGIN, END = "<!-- make synth: begin -->", "<!-- make synth: end -->"


def write_table(path: Path, catalogue: known_blocks.Catalogue, rows: list[Row], remarks: list[str]) -> None:
    """Replace what stands between the marks in ``path``."""
    text = path.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    made = (f"{yosys.heading(catalogue.board)}\n\n"
            f"{markdown(*lines(catalogue, rows))}\n{markdown(*table(catalogue, rows, True))}"
            + "".join(f"\n{remark}.\n" for remark in remarks))
    path.write_text(f"{head}{BEGIN}\n{made}{END}{tail}")


if __name__ == "__main__":
    main()
