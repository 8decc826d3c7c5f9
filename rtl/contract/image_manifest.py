"""image.json: what a packed image is, for whom it was packed, and where its parts lie in its files.

An image folder holds ``design.json`` (the DesignParams), ``image.json`` (this), ``stream.bin`` (the weight stream,
whole beats in order), ``tables.bin`` (embedding and rotary rows, whole beats) and ``program.bin`` (command words).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

DESIGN_FILE = "design.json"
MANIFEST_FILE = "image.json"
STREAM_FILE = "stream.bin"
TABLES_FILE = "tables.bin"
PROGRAM_FILE = "program.bin"
CONTENT_FILES = (STREAM_FILE, TABLES_FILE, PROGRAM_FILE)


@dataclass(frozen=True)
class Span:
    """``count`` units from unit ``first`` (beats of a file, or commands of the program)."""

    first: int
    count: int


@dataclass(frozen=True)
class ImageManifest:
    """Everything the host must know of an image besides its bytes."""

    contract_version: int
    design_hash: str
    """Hexadecimal, of the design the image was packed for."""
    content_hash: str
    """SHA-256 over the content files in order, hexadecimal."""
    layers_extent: Span
    """Beats of the stream that every pass consumes."""
    head_extent: Span
    """Beats of the stream that a pass with logits consumes after the layers'."""
    program_with_head: Span
    program_without_head: Span
    max_rows: int
    """Rows a pass may have with this model on this design."""
    vocabulary: int
    max_positions: int
    layers: int
    kv_heads: int
    head_dim: int
    block_beats: int
    """Beats of one block of 128 positions of one sequence (all layers and KV heads)."""
    top_k: int
    """k of the program's HEAD command."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ImageManifest:
        """Raises ``ValueError`` for text that is no manifest, naming what is wrong."""
        raw: Any = json.loads(text)
        if not isinstance(raw, dict) or set(raw) != {f.name for f in fields(cls)}:
            raise ValueError("the manifest's keys are not those of this version; pack the model again")
        for name in ("layers_extent", "head_extent", "program_with_head", "program_without_head"):
            raw[name] = Span(**raw[name])
        return cls(**raw)


def content_hash(folder: Path) -> str:
    """SHA-256 over the content files of an image folder, in order, hexadecimal."""
    digest = hashlib.sha256()
    for name in CONTENT_FILES:
        with open(folder / name, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()
