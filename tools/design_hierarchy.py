"""The module hierarchy of an emitted design, cut into blocks that can be synthesised or linted one by one.

A path is the instance names from the top down, joined by dots; the top's is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

MODULE = re.compile(r"^module (\\?\S+?) ?\(.*?^endmodule$", re.MULTILINE | re.DOTALL)
HEADER = re.compile(r"^module (\\?\S+?) ?\(", re.MULTILINE)
INSTANCE = re.compile(r"^  (\\?\S+) +(\\?\S+) +\($", re.MULTILINE)
PORT = re.compile(r"^  (?:input|output) .*$", re.MULTILINE)
BLOCK = "block"


@dataclass(frozen=True)
class VerilogModule:
    name: str
    text: str
    children: dict[str, str] = field(default_factory=dict)
    """Instance name → module name."""

    def stub(self) -> str:
        """A black box with the ports of this module."""
        header = self.text[:self.text.index(";") + 1]
        return "\n".join(["(* blackbox *)", header, *PORT.findall(self.text), "endmodule"])


@dataclass(frozen=True)
class Hierarchy:
    modules: dict[str, VerilogModule]
    top: str

    @classmethod
    def read(cls, verilog: str, top: str) -> Hierarchy:
        """The hierarchy of ``verilog``, written by Yosys as Amaranth calls it."""
        texts = {found[1]: found[0] for found in MODULE.finditer(verilog)}
        return cls({name: VerilogModule(name, text, {_instance(instance): module for module, instance
                                                     in INSTANCE.findall(text) if module in texts})
                    for name, text in texts.items()}, top)

    def instances(self, path: str = "", module: str | None = None) -> Iterator[tuple[str, str]]:
        """(path, module name) of the instance at ``path`` and of everything within."""
        module = module or self.top
        yield path, module
        for instance, child in self.modules[module].children.items():
            yield from self.instances(f"{path}.{instance}" if path else instance, child)

    def block(self, path: str, module: str, cuts: Iterable[str] = ()) -> str:
        """Verilog of the instance at ``path``, as module ``block``; instances at ``cuts`` become black boxes.

        The text doesn't depend on where the block is or on how often Amaranth had to number a name elsewhere.
        """
        cuts = set(cuts)
        kept: dict[str, None] = {}
        boxes: dict[str, None] = {}

        def visit(at: str, name: str) -> None:
            if at in cuts:
                boxes[name] = None
                return
            kept[name] = None
            for instance, child in self.modules[name].children.items():
                visit(f"{at}.{instance}" if at else instance, child)

        visit(path, module)
        parts = [self.modules[name].text for name in kept]
        parts += [self.modules[name].stub() for name in boxes if name not in kept]
        return _plain("\n\n".join(parts) + "\n", module)


def renamed(text: str, name: str) -> str:
    """``text`` of a block as module ``name``; the names of the modules within begin with it, too."""
    modules = set(HEADER.findall(text))

    def new(module: str) -> str:
        return name if module == BLOCK else f"\\{name}.{module.lstrip(chr(92)).removeprefix(f'{BLOCK}.')} "

    text = HEADER.sub(lambda found: f"module {new(found[1])}(", text)
    return INSTANCE.sub(lambda found: f"  {new(found[1])} {found[2]} (" if found[1] in modules else found[0], text)


def _plain(text: str, module: str) -> str:
    bare = module.lstrip("\\")
    text = re.sub(rf"\\{re.escape(bare)}\.", rf"\\{BLOCK}.", text)
    text = re.sub(rf"(?<![\w.$\\])\\?{re.escape(bare)} *(?=\()", BLOCK, text)
    text = re.sub(r"(?<=:dump_module)\$\d+", "", text)  # a register that each module has of its own
    numbers: dict[str, str] = {}
    return re.sub(r"\$(\d+)", lambda found: "$" + numbers.setdefault(found[1], str(len(numbers))), text)


def partition(hierarchy: Hierarchy, patterns: Mapping[str, Iterable[str]]) -> dict[str, list[tuple[str, str]]]:
    """Row name → its instances (path, module); a row's patterns match whole paths, ``*`` also within a name.

    Raises ``ValueError`` for a pattern that matches nothing, an instance of two rows, or a top that is in no row:
    everything of the design then belongs to the row of the nearest instance above it.
    """
    rows: dict[str, list[tuple[str, str]]] = {row: [] for row in patterns}
    owner: dict[str, str] = {}
    instances = list(hierarchy.instances())
    for row, row_patterns in patterns.items():
        for pattern in row_patterns:
            found = [(path, module) for path, module in instances
                     if _matches(path, pattern)]
            if not found:
                raise ValueError(f"block {row!r}: there is no instance {pattern!r}")
            for path, module in found:
                if path in owner:
                    raise ValueError(f"instance {path!r} is in the blocks {owner[path]!r} and {row!r}")
                owner[path] = row
                rows[row].append((path, module))
    if "" not in owner:
        raise ValueError("no block holds the top of the design")
    return rows


def _matches(path: str, pattern: str) -> bool:
    same_depth = bool(path) == bool(pattern) and path.count(".") == pattern.count(".")
    return same_depth and fnmatchcase(path, pattern)


def _instance(name: str) -> str:
    """An instance's name without the number that Yosys gives it where a signal is called the same."""
    return re.sub(r"\$\d+$", "", name.lstrip("\\"))
