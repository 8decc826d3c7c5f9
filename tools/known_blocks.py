"""The blocks of tools/blocks.yaml, found in the emitted accelerator, for the tools that lint and synthesise them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hls_py import design_folder
from hls_py.boards import Board, load_board
from hls_py.cache import Cache
from hls_py.emit.accelerator import TOP
from hls_py.emit.verilator import build_root
from hls_py.progress import Progress
from tools.design_hierarchy import Hierarchy, partition

CATALOGUE = Path(__file__).with_name("blocks.yaml")


@dataclass(frozen=True)
class Catalogue:
    """Rows, the instances (path, module) that each one has in ``hierarchy``, its budget line, the DSPs
    that an instance is meant to be, where that is declared, and the lines' LUTs."""

    board: Board
    hierarchy: Hierarchy
    rows: dict[str, list[tuple[str, str]]]
    lines: dict[str, str]
    dsps: dict[str, int]
    budgets: dict[str, float]

    def verilog(self, row: str, whole: bool = False) -> dict[str, int]:
        """Text of the block ``row`` → how often it occurs, one for each kind of instance. Of what other rows name
        within it only black boxes are left, unless ``whole``."""
        cuts = {path for instances in self.rows.values() for path, _ in instances}
        texts: dict[str, int] = {}
        for path, module in self.rows[row]:
            text = self.hierarchy.block(path, module, () if whole else cuts - {path})
            texts[text] = texts.get(text, 0) + 1
        return texts


def content() -> dict[str, Any]:
    """tools/blocks.yaml."""
    return yaml.safe_load(CATALOGUE.read_text())


def accelerator() -> tuple[Board, Path]:
    """The catalogue's board and its accelerator's Verilog, which is generated unless it has been."""
    board = load_board(content()["board"])
    return board, Cache(build_root(), Progress()).design(board.params) / design_folder.VERILOG_FILE


def load() -> Catalogue:
    """The catalogue for its board."""
    found = content()
    board, verilog = accelerator()
    hierarchy = Hierarchy.read(verilog.read_text(), TOP)
    rows = partition(hierarchy, {row: entry["instances"] for row, entry in found["blocks"].items()})
    return Catalogue(board, hierarchy, rows, {row: entry["line"] for row, entry in found["blocks"].items()},
                     {row: entry["dsp48e2"] for row, entry in found["blocks"].items() if "dsp48e2" in entry},
                     {line: 1000 * thousands for line, thousands in found["budgets"].items()})


def chosen(names: list[str]) -> list[str]:
    """The rows called ``names``, all if there are none; exits with the list when one isn't known."""
    known = list(content()["blocks"])
    unknown = set(names) - set(known)
    if unknown:
        raise SystemExit(f"unknown block {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return [name for name in known if not names or name in names]
