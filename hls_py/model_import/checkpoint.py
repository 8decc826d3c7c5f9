"""Tensors of a model folder by name, read one at a time from one or several safetensors files."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes  # noqa: F401  (teaches NumPy, and so safetensors, bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open

from hls_py.errors import TellmeError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Checkpoint:
    """Read-only access to the tensors of ``folder``; nothing is loaded before it is asked for.

    Raises :class:`TellmeError` when a file is missing, truncated or no safetensors file.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        for path in self._paths():
            try:
                with safe_open(path, framework="np") as file:
                    self._file_of.update({name: path for name in file.keys()})  # noqa: SIM118
            except (SafetensorError, OSError, ValueError) as error:
                raise TellmeError(f"{path} can't be read ({error}); download it again") from None

    def _paths(self) -> list[Path]:
        single, index = self.folder / SINGLE, self.folder / INDEX
        if single.is_file():
            return [single]
        if not index.is_file():
            raise TellmeError(f"{self.folder} has neither {SINGLE} nor {INDEX}")
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise TellmeError(f"{index} can't be read: {error!r}") from None
        for name in names:
            if not isinstance(name, str) or "/" in name or not (self.folder / name).is_file():
                raise TellmeError(f"{index} names {name!r}, which is not in {self.folder}")
        return [self.folder / name for name in names]

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def names(self) -> list[str]:
        return sorted(self._file_of)

    def tensor(self, name: str) -> np.ndarray:
        """The tensor as it is stored (float32, float16, bfloat16 or uint8 …)."""
        if name not in self._file_of:
            raise TellmeError(f"{self.folder}: tensor {name} is missing")
        try:
            with safe_open(self._file_of[name], framework="np") as file:
                return file.get_tensor(name)
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise TellmeError(f"{self._file_of[name]}: tensor {name} can't be read ({error})") from None

    def float_tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """``name`` as float32; raises when the shape differs, or when a value is not finite."""
        stored = self.tensor(name)
        if stored.dtype.kind in "iub":
            raise TellmeError(f"tensor {name} is {stored.dtype}; a float tensor is needed")
        if stored.shape != shape:
            raise TellmeError(f"tensor {name} has shape {list(stored.shape)}; the config asks for {list(shape)}")
        values = stored.astype(np.float32)
        if not np.isfinite(values).all():
            raise TellmeError(f"tensor {name} holds NaN or infinity")
        return values
