"""The blocks of tools/blocks.yaml, built for the tools that lint and synthesise them."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from amaranth.lib import wiring

from rtl.contract.design_params import DesignParams

CATALOGUE = Path(__file__).with_name("blocks.yaml")


@dataclass(frozen=True)
class KnownBlock:
    """An entry of the catalogue; ``count`` instances of it are in the accelerator."""

    name: str
    module: str
    component: str
    count: int = 1
    budget: str | None = None

    def build(self, designs: dict[str, DesignParams]) -> wiring.Component:
        return eval(self.component, vars(importlib.import_module(self.module)) | designs)


def load() -> tuple[list[KnownBlock], dict[str, DesignParams], dict[str, float]]:
    """Blocks, designs, and budgets in LUTs."""
    content: dict[str, Any] = yaml.safe_load(CATALOGUE.read_text())
    designs = {name: DesignParams(**parameters) for name, parameters in content["designs"].items()}
    blocks = [KnownBlock(name, **entry) for name, entry in content["blocks"].items()]
    return blocks, designs, {name: 1000 * thousands for name, thousands in content["budgets"].items()}


def chosen(blocks: list[KnownBlock], names: list[str]) -> list[KnownBlock]:
    """The blocks called ``names``, all if there are none; exits with the list when one isn't known."""
    unknown = set(names) - {block.name for block in blocks}
    if unknown:
        raise SystemExit(f"unknown block {', '.join(sorted(unknown))}; there are: {', '.join(b.name for b in blocks)}")
    return [block for block in blocks if not names or block.name in names]
