"""Where Verilator is, and how emitted designs are handed to it: shared by benches and by the simulator device."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Amaranth takes half a second to import, which finding a finished build needn't
    from rtl.streams.shared_module import EmittedDesign

# What Amaranth's Verilog is known to provoke; anything else that Verilator says is worth reading.
LINT_WAIVERS = ("-Wno-fatal", "-Wno-WIDTH", "-Wno-CASEINCOMPLETE", "-Wno-UNOPTFLAT", "-Wno-UNUSEDSIGNAL",
                "-Wno-DECLFILENAME", "-Wno-CASEOVERLAP", "-Wno-LATCH")

INPUT_PORT = re.compile(r"^  input(?: signed)?(?: \[\d+:\d+\])? (\S+?) ?;", re.MULTILINE)


def build_root() -> Path:
    """Folder for everything generated: ``TELLME_BUILD_DIR``, else ``build/`` of the project."""
    return Path(os.environ.get("TELLME_BUILD_DIR") or Path(__file__).resolve().parents[2] / "build")


def tool_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment for Verilator and make: the virtual environment's tools first, object files cached by ccache."""
    env = dict(os.environ if base is None else base)
    env["PATH"] = os.pathsep.join([str(Path(sys.prefix) / "bin"), env.get("PATH", os.defpath)])
    if shutil.which("ccache", path=env["PATH"]):
        env.setdefault("OBJCACHE", "ccache")
        env.setdefault("CCACHE_DIR", str(build_root() / "ccache"))
        env.setdefault("CCACHE_MAXSIZE", "2G")
    return env


def verilator_command() -> str:
    """Path of the ``verilator`` to call."""
    found = shutil.which("verilator", path=tool_environment()["PATH"])
    if found is None:
        raise FileNotFoundError("no verilator in the virtual environment or on PATH: run `make setup`")
    return found


def verilator_version() -> str:
    """What ``verilator --version`` answers."""
    return subprocess.run([verilator_command(), "--version"], capture_output=True, text=True, check=True).stdout.strip()


def keep_shared_modules(design: EmittedDesign) -> str:
    """Text of a .vlt file that stops Verilator from inlining shared modules into sixteen copies again."""
    return "`verilator_config\n" + "".join(f'no_inline -module "{name}"\n' for name in design.shared_modules)


def share_functions(design: EmittedDesign) -> str:
    """Lines for a .vlt file by which the instances of a shared module share its functions.

    Verilator joins functions of equal text. Inputs that may be read from outside stay the module's own, where otherwise
    the parent's signals would be read, which have another name in each instance.
    """
    lines = []
    for name in design.shared_modules:
        start = design.verilog.index(f"\nmodule {name}(")
        ports = INPUT_PORT.findall(design.verilog, start, design.verilog.index("\nendmodule", start))
        lines += [f'public_flat_rd -module "{name}" -var "{port}"\n' for port in ports if port != "clk"]
    return "".join(lines)


def write_sources(design: EmittedDesign, folder: Path, hints: str = "") -> list[Path]:
    """Write the design and its hints for Verilator, ``hints`` too; returns the files to name on its command line."""
    vlt, source = folder / f"{design.name}.vlt", folder / f"{design.name}.v"
    vlt.write_text(keep_shared_modules(design) + hints)
    source.write_text(design.verilog)
    return [vlt, source]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` against other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build_once(kind: str, key_parts: list[str], build: Callable[[Path], None]) -> Path:
    """Folder in which ``build(folder)`` has run successfully once for these ``key_parts``.

    Safe for several processes: the second waits for the first and finds the result. A build that raises leaves
    nothing behind that counts as built.
    """
    key = hashlib.sha256("\0".join([kind, sys.prefix, *key_parts]).encode()).hexdigest()[:20]
    folder = build_root() / "sim_cache" / f"{kind}-{key}"
    marker = folder / "complete"
    if not marker.exists():
        with locked(folder.with_suffix(".lock")):
            if not marker.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                build(folder)
                marker.touch()
    return folder
