"""Imports go one way: rtl.contract ← rtl ← hls_py ← sim_tests, and rtl.contract ← host.

Read from the syntax trees, so that imports inside functions count and nothing has to be importable.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
OWN = ("rtl", "hls_py", "host", "sim_tests")


@dataclass(frozen=True)
class Import:
    module: str  # of the importing file
    target: str  # what it imports, dotted
    lazy: bool   # inside a function, so not executed when the file is imported
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}{' (in a function)' if self.lazy else ''}"


def imports_of(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """Every import statement of a file; ``from a import b`` gives a.b, which is b's module if there is one."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            lazy = True  # for the type checker only
        if isinstance(node, ast.Import):
            yield from (Import(module, name.name, lazy, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if node.level else []
            parts = parts[:len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (Import(module, f"{base}.{name.name}", lazy, node.lineno) for name in node.names)
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy)

    yield from visit(ast.parse(source), lazy=False)


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def broken_rule(found: Import) -> str | None:
    """The rule that an import breaks, or None."""
    module, target = found.module, found.target
    top = target.split(".")[0]
    if inside(target, "sim_tests") and not inside(module, "sim_tests"):
        return "nobody imports sim_tests"
    if inside(module, "rtl.contract"):
        if not inside(target, "rtl.contract") and top not in sys.stdlib_module_names:
            return "rtl.contract uses the standard library only"
    elif inside(module, "rtl"):
        if inside(target, "hls_py", "host"):
            return "rtl imports nothing above it"
    elif inside(module, "hls_py"):
        if inside(target, "host"):
            return "hls_py doesn't know the host"
        if inside(module, "hls_py.golden", "hls_py.kernels") and not found.lazy and inside(target, "amaranth"):
            return "golden and kernels import no Amaranth at module level"
        if inside(module, "hls_py.golden", "hls_py.kernels") and inside(target, "rtl") \
                and not inside(target, "rtl.contract") and not found.lazy:
            return "golden and kernels import nothing of rtl but rtl.contract at module level"
    elif inside(module, "host"):
        if inside(target, "rtl") and not inside(target, "rtl.contract"):
            return "host imports nothing of rtl but rtl.contract"
        if inside(target, "hls_py") and not (found.lazy and inside(target, "hls_py.golden")):
            return "host imports nothing of hls_py but hls_py.golden, inside functions"
        if inside(target, "amaranth"):
            return "host runs without Amaranth"
    return None


def all_imports() -> list[Import]:
    found: list[Import] = []
    for package in OWN:
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            found += imports_of(path.read_text(), module, is_package)
    return found


def test_imports_go_one_way():
    found = all_imports()
    assert any(inside(i.target, "rtl.contract") for i in found), "the test reads the wrong files"
    broken = [f"{i}: {rule}" for i in found if (rule := broken_rule(i))]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("module, source, allowed", [
    ("rtl.contract.x", "import json, struct", True),
    ("rtl.contract.x", "from rtl.contract.y import Z", True),
    ("rtl.contract.x", "from .y import Z", True),
    ("rtl.contract.x", "import numpy", False),
    ("rtl.contract.x", "from ..streams import y", False),
    ("rtl.contract.x", "def f():\n    import amaranth", False),
    ("rtl.x", "from amaranth.hdl import Module", True),
    ("rtl.x", "def f():\n    from hls_py.kernels import k", False),
    ("rtl.x", "import host", False),
    ("hls_py.emit.x", "from rtl.accelerator import Accelerator", True),
    ("hls_py.x", "from host.devices import uio", False),
    ("hls_py.x", "import sim_tests.harness", False),
    ("hls_py.golden.x", "import numpy", True),
    ("hls_py.golden.x", "from amaranth.hdl import Module", False),
    ("hls_py.golden.x", "from rtl.contract import formats", True),
    ("hls_py.golden.x", "from rtl.head.argmax import Argmax", False),
    ("hls_py.kernels.x", "if True:\n    import amaranth", False),
    ("hls_py.kernels.x", "def pipeline():\n    import amaranth", True),
    ("host.x", "from rtl.contract.register_map import REGISTERS", True),
    ("host.x", "from rtl.streams import shapes", False),
    ("host.x", "from hls_py.golden import device", False),
    ("host.x", "class D:\n    def f(self):\n        from hls_py.golden import machine", True),
    ("host.x", "def f():\n    from hls_py.packing import image", False),
    ("host.x", "def f():\n    from hls_py import golden", True),
    ("host.x", "from hls_py import cli", False),
    ("sim_tests.x", "import rtl, hls_py, host.cli", True),
])
def test_rules(module: str, source: str, allowed: bool):
    """The rules themselves catch what they are for."""
    rules = [broken_rule(i) for i in imports_of(source, module, is_package=False)]
    assert (rules == [None] * len(rules)) is allowed
