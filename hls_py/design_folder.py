"""What a generated folder holds, and how its parts are written and read back.

design.json, board.json, tellme.v, tellme.vlt (hints for Verilator), tellme_design.h: the design;
image.json, stream.bin, tables.bin, program.bin: the model's image; libtellme_sim.so: the simulator, if it was built.
Imports neither Amaranth nor NumPy before something has to be made.
"""

from __future__ import annotations

import json
from pathlib import Path

from hls_py.boards import BOARD_FILE, Board
from hls_py.errors import TellmeError
from rtl.contract import image_manifest as manifest
from rtl.contract.design_params import DesignParams

VERILOG_FILE = "tellme.v"
HINTS_FILE = "tellme.vlt"
HEADER_FILE = "tellme_design.h"
LIBRARY_FILE = "libtellme_sim.so"
LIBRARY_LOG_FILE = "libtellme_sim.log"

DESIGN_FILES = (manifest.DESIGN_FILE, BOARD_FILE, VERILOG_FILE, HINTS_FILE, HEADER_FILE)
IMAGE_FILES = (manifest.MANIFEST_FILE, *manifest.CONTENT_FILES)
ALL_FILES = (*DESIGN_FILES, *IMAGE_FILES, LIBRARY_FILE, LIBRARY_LOG_FILE)


def write_design(params: DesignParams, folder: Path) -> None:
    """Verilog, hints, C header and design.json of ``params``."""
    from hls_py.emit.accelerator import emit_accelerator
    from hls_py.emit.c_header import design_header
    from hls_py.emit.verilator import share_functions, write_sources
    design = emit_accelerator(params)
    write_sources(design, folder, share_functions(design))
    (folder / HEADER_FILE).write_text(design_header(params), encoding="utf-8")
    (folder / manifest.DESIGN_FILE).write_text(design_text(params), encoding="utf-8")


def design_text(params: DesignParams) -> str:
    """Text of design.json."""
    return json.dumps(params.to_dict(), indent=1, sort_keys=True) + "\n"


def write_board(board: Board, folder: Path) -> None:
    (folder / BOARD_FILE).write_text(board.to_json(), encoding="utf-8")


def write_image(params: DesignParams, model: Path, folder: Path, progress: bool, i2s_layout: str | None = None) -> None:
    """Make ``folder`` the image of a model (a folder or a GGUF file), with design.json.

    Raises :class:`TellmeError` for anything that is wrong with the model, and leaves what was there.
    """
    from hls_py.model_import.model import Model
    from hls_py.packing.image import pack
    pack(Model(model, i2s_layout), params, folder, progress)


def read_design(folder: Path) -> DesignParams:
    """Parameters of the design in ``folder``."""
    path = folder / manifest.DESIGN_FILE
    try:
        return DesignParams.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise TellmeError(f"{folder} has no {path.name}; give a folder that `tellme-hls generate` wrote") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise TellmeError(f"{path} can't be read as a design: {error}") from None


def simulator_sources(folder: Path) -> list[Path]:
    """What Verilator compiles of the design in ``folder``."""
    sources = [folder / HINTS_FILE, folder / VERILOG_FILE]
    for path in sources:
        if not path.is_file():
            raise TellmeError(f"{folder} has no {path.name}; give a folder that `tellme-hls generate` wrote")
    return sources
