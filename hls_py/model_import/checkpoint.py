"""Tensors of a model folder by name, read one at a time (or a few rows) from one or several safetensors files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (teaches NumPy, and so safetensors, bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open

from hls_py.errors import TellmeError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Checkpoint:
    """Read-only access to the tensors of ``folder``; nothing is loaded before it is asked for.

    Files are opened for each access, so that what was read doesn't stay mapped.
    Raises :class:`TellmeError` when a file is missing, truncated or no safetensors file.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        self._shape_of: dict[str, tuple[int, ...]] = {}
        self._type_of: dict[str, str] = {}
        paths, expected = self._paths()
        for path in paths:
            self._read_header(path)
        for name, path in expected.items():
            if self._file_of.get(name) != path:
                raise TellmeError(f"{folder / INDEX} says that tensor {name} is in {path.name}, which has none of that "
                                  "name; download the checkpoint again")

    def _paths(self) -> tuple[list[Path], dict[str, Path]]:
        """Files, and which of them the index says each tensor is in."""
        single, index = self.folder / SINGLE, self.folder / INDEX
        if single.is_file():
            return [single], {}
        if not index.is_file():
            pickled = any(self.folder.glob("pytorch_model*.bin"))
            raise TellmeError(f"{self.folder} has neither {SINGLE} nor {INDEX}" + (
                "; pytorch_model.bin is not read, for it may hold code: convert it to safetensors" if pickled else ""))
        try:
            where = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            names = sorted(set(where.values()))
        except (KeyError, AttributeError, TypeError):
            raise TellmeError(f"{index} has no weight_map that says which file each tensor is in") from None
        except (OSError, ValueError, RecursionError) as error:
            raise TellmeError(f"{index} can't be read: {error}") from None
        for name in names:
            if not isinstance(name, str) or "/" in name or "\0" in name or not (self.folder / name).is_file():
                raise TellmeError(f"{index} names {name!r}, which is not in {self.folder}")
        return [self.folder / name for name in names], {k: self.folder / v for k, v in where.items()}

    def _read_header(self, path: Path) -> None:
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118
                    if name in self._file_of:
                        raise TellmeError(f"tensor {name} is in {self._file_of[name].name} and in {path.name}")
                    part = file.get_slice(name)
                    self._file_of[name], self._shape_of[name] = path, tuple(part.get_shape())
                    self._type_of[name] = part.get_dtype()
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise TellmeError(f"{path} can't be read ({error}); download it again") from None

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def names(self) -> list[str]:
        return sorted(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shape_of[name]

    def type_name(self, name: str) -> str:
        """As safetensors calls it: F32, F16, BF16, U8 …"""
        return self._type_of[name]

    def tensor(self, name: str) -> np.ndarray:
        """The tensor as it is stored (float32, float16, bfloat16 or uint8 …)."""
        return self._read(name, lambda file: file.get_tensor(name))

    def _read(self, name: str, read: Callable[[Any], np.ndarray]) -> np.ndarray:
        if name not in self._file_of:
            raise TellmeError(f"{self.folder}: tensor {name} is missing")
        try:
            with safe_open(self._file_of[name], framework="np") as file:
                return read(file)
        except (SafetensorError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise TellmeError(f"{self._file_of[name]}: tensor {name} can't be read ({error})") from None

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises :class:`TellmeError` unless ``name`` is a float tensor of that shape."""
        if name not in self:
            raise TellmeError(f"{self.folder}: tensor {name} is missing")
        if self._type_of[name] not in ("F64", "F32", "F16", "BF16"):
            stored = self._type_of[name]
            integer = {"I": "int", "U": "uint"}.get(stored[0])
            raise TellmeError(f"tensor {name} is {integer + stored[1:] if integer else stored}; "
                              "a float tensor is needed")
        if self._shape_of[name] != shape:
            raise TellmeError(f"tensor {name} has shape {list(self._shape_of[name])}; the config asks for "
                              f"{list(shape)}")

    def float_tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """``name`` as float32; raises when the shape differs, or when a value is not finite."""
        self.check(name, shape)
        return finite(self.tensor(name), name)

    def float_rows(self, name: str, first: int, last: int) -> np.ndarray:
        """Rows of a float matrix as float32; raises when a value is not finite."""
        return finite(self._read(name, lambda file: file.get_slice(name)[first:last]), name)


def finite(stored: np.ndarray, name: str) -> np.ndarray:
    """As float32. Raises :class:`TellmeError` when a value is not finite (or doesn't fit)."""
    with np.errstate(over="ignore"):
        values = stored.astype(np.float32)
    if not np.isfinite(values).all():
        raise TellmeError(f"tensor {name} holds NaN or infinity")
    return values
