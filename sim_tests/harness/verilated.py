"""Compiles a design with the C++ that drives it, in a hurry: the benches have some two hundred, most of them small.

With Verilator's own makefile nearly all of the time goes into its headers, which every C++ file parses anew. Here
Verilator's runtime library and a precompiled form of its headers are made once, and what belongs to a design is one
translation unit. All of it is kept in build/sim_cache.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from hls_py.emit.verilator import (
    LINT_WAIVERS,
    build_once,
    tool_environment,
    verilator_command,
    verilator_version,
    write_sources,
)
from rtl.streams.shared_module import EmittedDesign

VERILATOR_ARGS = ("--cc", "--make", "json", "--prefix", "Vtop", *LINT_WAIVERS, "-Wno-lint", "-O3", "--x-assign", "fast")
COMPILER = os.environ.get("CXX", "g++")
COMPILER_FLAGS = ("-std=gnu++17", "-fPIC", "-w", "-pthread", "-DVERILATOR=1")
HEADERS = "runtime.h"


def build_verilated(design: EmittedDesign, driver: Mapping[str, str], product: str, *, verilator: tuple[str, ...] = (),
                    hints: str = "", optimise: str = "-O0", link: tuple[str, ...] = ()) -> Path:
    """Folder with ``product``, made of ``design`` (class ``Vtop``) and ``driver``.

    Parameters
    ----------
    driver    : texts of C++ files by name; ``driver.cpp`` is compiled, and may include the others.
    product   : name of the file that the linker writes.
    verilator : more arguments for Verilator.
    hints     : more lines for the design's .vlt file.
    optimise  : the compiler's option for what runs in every cycle.
    link      : the linker's arguments.

    Raises ``RuntimeError`` with what the tool said.
    """
    def build(folder: Path) -> None:
        for name, text in driver.items():
            (folder / name).write_text(text)
        _run(folder, [verilator_command(), *VERILATOR_ARGS, *verilator, "--top-module", design.name, "-Mdir", ".",
                      *(path.name for path in write_sources(design, folder, hints))])
        facts = json.loads((folder / "Vtop.json").read_text())
        sources, flags = facts["sources"], _flags(facts)
        (folder / "all.cpp").write_text(_one_unit(sources))
        headers = _headers(sources["global"], [*flags, optimise])
        _run(folder, [COMPILER, *flags, optimise, "-I.", "-include", str(headers), "-c", "all.cpp", "-o", "all.o"])
        runtime = [str(_runtime_object(source, flags)) for source in sources["global"]]
        _run(folder, [COMPILER, "all.o", *runtime, "-pthread", *link, "-o", product])

    return build_once("verilated", [design.name, design.verilog, *design.shared_modules, *VERILATOR_ARGS, *verilator,
                                    hints, *driver, *driver.values(), product, *COMPILER_FLAGS, optimise, *link,
                                    *_tools()], build)


def _one_unit(sources: Mapping[str, list[str]]) -> str:
    """Text of the C++ file that includes all of a design. What runs but once isn't worth optimising."""
    fast, slow = ([f'#include "{Path(path).name}"\n' for kind in kinds for path in sources.get(kind, ())]
                  for kinds in (("classes_fast", "support_fast"), ("classes_slow", "support_slow")))
    return "".join([*fast, '#include "driver.cpp"\n', '#pragma GCC optimize ("O0")\n', *slow])


def _runtime_object(source: str, flags: list[str]) -> Path:
    """Object file of one of Verilator's own sources."""
    name = f"{Path(source).stem}.o"
    return build_once("runtime", [source, *flags, *_tools()],
                      lambda folder: _run(folder, [COMPILER, *flags, "-Os", "-c", source, "-o", name])) / name


def _headers(sources: list[str], flags: list[str]) -> Path:
    """The headers of Verilator's own ``sources``, precompiled; the compiler takes them for the very same flags only."""
    files = [path.name for source in sources if (path := Path(source).with_suffix(".h")).exists()]
    text = "".join(f'#include "{name}"\n' for name in files)

    def build(folder: Path) -> None:
        (folder / HEADERS).write_text(text)
        _run(folder, [COMPILER, *flags, "-x", "c++-header", HEADERS, "-o", f"{HEADERS}.gch"])

    return build_once("headers", [text, *flags, *_tools()], build) / HEADERS


def _flags(facts: Mapping[str, Any]) -> list[str]:
    include = Path(facts["system"]["verilator_root"]) / "include"
    wanted = [f"-DVM_{name.upper()}={int(facts['options'][name])}"
              for name in ("coverage", "trace", "trace_fst", "trace_saif", "trace_vcd")]
    return [*COMPILER_FLAGS, *wanted, f"-I{include}", f"-I{include / 'vltstd'}"]


@lru_cache(1)
def _tools() -> tuple[str, str]:
    """What the tools say of their versions."""
    done = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True)
    return verilator_version(), done.stdout


def _run(folder: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=folder, env=tool_environment(), text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with (folder / "build.log").open("a") as log:
        log.write(done.stdout)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed; the end of {folder}/build.log:\n{done.stdout[-4000:]}")
