"""Compiles an emitted design with the memory model into ``libtellme_sim.so``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hls_py.emit.verilator import LINT_WAIVERS, locked, tool_environment, verilator_command, verilator_version
from hls_py.errors import TellmeError
from rtl.contract.design_params import DesignParams

LIBRARY_FILE = "libtellme_sim.so"
SOURCES = Path(__file__).parent
SHIM = SOURCES / "simulator.cpp"
TRACE_HINTS = SOURCES / "trace.vlt"
HEADERS = ("port_pins.h", "axi_rules.h", "memory.h", "memory_port.h")

# -fno-gate: gate optimisation costs minutes on table-lookup lanes and gains nothing. Functions are split so that all
# instances of a module share every part but the one that fetches their inputs (share_functions).
BUILD_ARGS = ("--cc", "--exe", "--build", "--prefix", "Vtellme", "--top-module", "tellme", *LINT_WAIVERS, "-Wno-lint",
              "-O3", "-fno-gate", "--output-split-cfuncs", "1000", "--x-assign", "fast", "--x-initial", "fast",
              "--noassert", "-MAKEFLAGS", "OPT_FAST=-O2", "-CFLAGS", "-fPIC", "-LDFLAGS", "-shared", "-o", LIBRARY_FILE)


def ports_header(params: DesignParams) -> str:
    """Text of design_ports.h: what the C++ must know of the design at compile time."""
    ports = " ".join(f"PORT({p})" for p in range(params.ports))
    return (f"#define TELLME_PORT_BYTES {params.port_bytes}\n"
            f"#define TELLME_ADDRESS_BITS {params.address_bits}\n"
            f"#define TELLME_BURST_BEATS {params.burst_beats}\n"
            f"#define TELLME_FOR_EACH_PORT(PORT) {ports}\n")


def simulator_key(params: DesignParams, sources: list[Path]) -> str:
    """Hexadecimal key of the library that ``sources`` (Verilog and hints) give here."""
    digest = hashlib.sha256()
    for text in (ports_header(params), *BUILD_ARGS, sys.prefix, verilator_version()):
        digest.update(text.encode() + b"\0")
    for path in (*sources, TRACE_HINTS, SHIM, *(SOURCES / name for name in HEADERS)):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


def build_simulator(params: DesignParams, sources: list[Path], library: Path, jobs: int = 2,
                    object_cache: bool = True) -> None:
    """Compile ``sources`` (Verilog whose top is ``tellme``, and .vlt hints) into ``library``, which appears complete.

    Without ``object_cache`` every object file is compiled anew.
    Raises :class:`TellmeError` when there is no Verilator or it refuses; its output is kept beside the library.
    """
    library.parent.mkdir(parents=True, exist_ok=True)
    try:
        verilator = verilator_command()
    except FileNotFoundError as error:
        raise TellmeError(str(error)) from None
    with tempfile.TemporaryDirectory(prefix=".simulator-", dir=library.parent) as work:
        # Everything the compiler sees has the same name in every build, so that ccache knows it again.
        for path in (*sources, TRACE_HINTS, SHIM, *(SOURCES / name for name in HEADERS)):
            shutil.copy(path, work)
        (Path(work) / "design_ports.h").write_text(ports_header(params))
        command = [verilator, *BUILD_ARGS, "-j", str(jobs), "-Mdir", "obj", "-CFLAGS", "-I..",
                   TRACE_HINTS.name, *(path.name for path in sources), SHIM.name]
        environment = tool_environment()
        if not object_cache:
            environment.pop("OBJCACHE", None)
        done = subprocess.run(command, cwd=work, env=environment, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            log = library.with_suffix(".log")
            log.write_text(done.stdout)
            raise TellmeError(f"building the simulator failed; Verilator's and the compiler's output is in {log}")
        os.replace(Path(work) / "obj" / LIBRARY_FILE, library)


def cached_simulator(params: DesignParams, sources: list[Path], cache: Path) -> Path:
    """The library of ``sources`` under ``cache``, built if it isn't there; safe for several processes."""
    library = cache / simulator_key(params, sources) / LIBRARY_FILE
    if not library.exists():
        with locked(library.parent.with_suffix(".lock")):
            if not library.exists():
                build_simulator(params, sources, library)
    return library
