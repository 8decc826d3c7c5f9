"""Opens a model in whatever form it comes."""

from __future__ import annotations

from pathlib import Path

from hls_py.model_import.parts import Source

GGUF_SUFFIX = ".gguf"
GGUF_MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether ``path`` is a file that says (by name or first bytes) that it is GGUF."""
    if not path.is_file():
        return False
    if path.suffix.lower() == GGUF_SUFFIX:
        return True
    with open(path, "rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC


def open_source(path: Path, i2s_layout: str | None = None) -> Source:
    """Raises :class:`hls_py.errors.TellmeError` when it can't be read, or isn't supported."""
    if is_gguf(path):
        from hls_py.model_import.gguf_source import GgufSource
        return GgufSource(path, i2s_layout)
    from hls_py.model_import.huggingface import HuggingFaceSource
    return HuggingFaceSource(path)
