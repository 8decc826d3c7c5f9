"""Finds the first difference between two images, or between an image and what packing its source would write."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from hls_py.design_folder import read_design
from hls_py.errors import TellmeError
from hls_py.golden.ternary_matmul.encoding import decode_tile
from hls_py.model_import.model import Model
from hls_py.packing.image import StreamRecords, model_shape, programs_of
from hls_py.packing.tables import table_chunks
from rtl.contract import image_manifest as manifest
from rtl.contract.command_words import COMMAND_BYTES, DrainMode, Opcode, decode
from rtl.contract.design_params import DesignParams
from rtl.contract.image_manifest import ImageManifest
from rtl.contract.stream_records import MAGIC, RECORD_HEADER, Destination, record_crc

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class TileName:
    """A CODES record, as the program has it."""

    layer: int
    matrix: str
    first: int
    steps: int
    slices: int


@dataclass(frozen=True)
class Record:
    header: dict[str, int]
    raw: bytes
    """Header beat and payload."""


class Image:
    """A packed folder. Raises :class:`TellmeError` when it isn't one, or its stream is damaged."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.params: DesignParams = read_design(folder)
        try:
            self.manifest = ImageManifest.from_json((folder / manifest.MANIFEST_FILE).read_text(encoding="utf-8"))
            self.program = (folder / manifest.PROGRAM_FILE).read_bytes()
            self.stream_bytes = (folder / manifest.STREAM_FILE).stat().st_size
            self.tiles = list(self._tiles())
        except OSError as error:
            raise TellmeError(f"{error.filename}: {error.strerror}; give a folder that `tellme-hls` packed") from None
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise TellmeError(f"{folder} is no image ({error}); pack the model again") from None

    def commands(self) -> list[bytes]:
        return [self.program[i:i + COMMAND_BYTES] for i in range(0, len(self.program), COMMAND_BYTES)]

    def _tiles(self) -> Iterator[TileName]:
        """Names of the CODES records, from the program with the head: tiles come in the order of their records."""
        span = self.manifest.program_with_head
        layer = 0
        pending: deque[tuple[int, int]] = deque()
        done: dict[tuple[int, str], int] = {}
        for raw in self.commands()[span.first:span.first + span.count]:
            opcode, fields = decode(raw)
            if opcode is Opcode.TILE:
                pending.append((int(fields["steps"]), int(fields["slices"])))
            elif opcode is Opcode.DRAIN:
                mode = DrainMode(int(fields["mode"]))
                if mode in (DrainMode.QUERY, DrainMode.KEY, DrainMode.VALUE) and (layer, "down") in done:
                    layer += 1
                names = {DrainMode.QUERY: ["query"], DrainMode.KEY: ["key"], DrainMode.VALUE: ["value"],
                         DrainMode.GATED: ["gate", "up"]}.get(mode)
                if names is None:
                    names = ["down" if (layer, "gate") in done else "output"]
                for name in names:
                    steps, slices = pending.popleft()
                    first = done.get((layer, name), 0)
                    yield TileName(layer, name, first, steps, slices)
                    done[layer, name] = first + int(fields["outputs"])

    def records(self) -> Iterator[Record]:
        """Every record, its CRC checked."""
        beat = self.params.beat_bytes
        with open(self.folder / manifest.STREAM_FILE, "rb") as file:
            number = 0
            while header_beat := file.read(beat):
                header = {k: int(v) for k, v in RECORD_HEADER.unpack(header_beat.ljust(16, b"\0")).items()}
                payload = file.read(header["beats"] * beat) if header["magic"] == MAGIC else b""
                if header["magic"] != MAGIC or len(payload) != header["beats"] * beat:
                    raise TellmeError(f"{self.folder}: record {number} of the stream is damaged (no header there)")
                if record_crc(header_beat, payload) != header["crc"]:
                    raise TellmeError(f"{self.folder}: record {number} of the stream is damaged (its CRC is wrong)")
                yield Record(header, header_beat + payload)
                number += 1

    def table_bytes(self) -> Iterator[bytes]:
        with open(self.folder / manifest.TABLES_FILE, "rb") as file:
            while part := file.read(CHUNK_BYTES):
                yield part


def first_difference(a: Image, b: Image) -> str | None:
    """In words, or None where the images are the same."""
    if a.params != b.params:
        mine, theirs = a.params.to_dict(), b.params.to_dict()
        changed = [f"{key} {mine[key]!r} against {theirs[key]!r}" for key in mine if mine[key] != theirs[key]]
        return f"designs: {', '.join(changed)}"
    changed = [f"{key} {value} against {getattr(b.manifest, key)}" for key, value in vars(a.manifest).items()
               if key != "content_hash" and value != getattr(b.manifest, key)]
    if changed:
        return f"manifests: {', '.join(changed)}"
    return (_streams(a, a.records(), b.records()) or _programs(a.program, b.program)
            or _tables(a, a.table_bytes(), b.table_bytes()))


def first_difference_from_source(image: Image, model: Model) -> str | None:
    """The same against what packing ``model`` for the image's design would write; nothing is written."""
    shape = model_shape(model, image.params)
    stream = StreamRecords(model, shape)

    def made() -> Iterator[Record]:
        for records in (stream.layers(), stream.head()):
            for _, raw in records:
                yield Record({k: int(v) for k, v in RECORD_HEADER.unpack(raw[:16]).items()}, raw)

    found = _streams(image, image.records(), made())
    if found:
        return found
    return (_programs(image.program, b"".join(programs_of(shape, stream.scales)))
            or _tables(image, image.table_bytes(), table_chunks(shape, model.embedding_rows())))


def _streams(image: Image, a: Iterable[Record], b: Iterable[Record]) -> str | None:
    tiles = iter(image.tiles)
    for number, (mine, theirs) in enumerate(zip_longest(a, b)):
        if mine is None or theirs is None:
            return f"streams: record {number} is only in the {'second' if mine is None else 'first'}"
        tile = next(tiles, None) if mine.header["destination"] == Destination.CODES else None
        if mine.raw != theirs.raw:
            return _records(image, number, tile, mine, theirs)
    return None


def _records(image: Image, number: int, tile: TileName | None, a: Record, b: Record) -> str:
    for key in ("destination", "flags", "beats"):
        if a.header[key] != b.header[key]:
            return f"streams: record {number}: {key} {a.header[key]} against {b.header[key]}"
    beat = image.params.beat_bytes
    mine, theirs = a.raw[beat:], b.raw[beat:]
    destination = Destination(a.header["destination"])
    if tile is not None:
        x, y = (decode_tile(raw, image.params, tile.slices, tile.steps) for raw in (mine, theirs))
        where = np.argwhere(x != y)
        if len(where):
            row, column = where[0]
            return (f"streams: layer {tile.layer}, {tile.matrix}: output {tile.first + row}, input {column} (in the "
                    f"hardware's order): {x[row, column]:+d} against {y[row, column]:+d}; {len(where)} weights of this "
                    f"tile differ (record {number})")
    kind, what = (np.dtype("<f4"), "value") if destination in (Destination.GAINS, Destination.HEAD_SCALES) else (
        np.dtype(np.int8), "byte")
    x, y = np.frombuffer(mine, kind), np.frombuffer(theirs, kind)
    bits = np.dtype("<u4") if kind.itemsize == 4 else np.dtype(np.uint8)  # NaN differs from itself
    places = np.flatnonzero(x.view(bits) != y.view(bits))
    if not len(places):
        return f"streams: record {number} ({destination.name}): headers differ"
    return (f"streams: record {number} ({destination.name}): {what} {places[0]} is {x[places[0]]} against "
            f"{y[places[0]]}; {len(places)} differ")


def _programs(a: bytes, b: bytes) -> str | None:
    if a == b:
        return None
    for i in range(0, max(len(a), len(b)), COMMAND_BYTES):
        mine, theirs = a[i:i + COMMAND_BYTES], b[i:i + COMMAND_BYTES]
        if mine == theirs:
            continue
        if not mine or not theirs:
            return f"programs: command {i // COMMAND_BYTES} is only in the {'second' if not mine else 'first'}"
        try:
            (op, x), (other, y) = decode(mine), decode(theirs)
        except ValueError:
            return f"programs: command {i // COMMAND_BYTES} differs, and one is no command"
        if op is not other:
            return f"programs: command {i // COMMAND_BYTES} is {op.name} against {other.name}"
        changed = ", ".join(f"{k} {x[k]} against {y[k]}" for k in x if x[k] != y[k])
        return f"programs: command {i // COMMAND_BYTES} ({op.name}): {changed or 'unused bits'}"
    return None


def _tables(image: Image, a: Iterable[bytes], b: Iterable[bytes]) -> str | None:
    m = image.manifest
    tables = next(decode(raw)[1] for raw in image.commands() if decode(raw)[0] is Opcode.GATHER)
    embedding_bytes = int(tables["embedding_row_beats"]) * image.params.beat_bytes
    rotary_bytes = int(tables["rotary_row_beats"]) * image.params.beat_bytes
    position = 0
    for mine, theirs in _aligned(a, b):
        if mine != theirs:
            size = min(len(mine), len(theirs))
            at = np.flatnonzero(np.frombuffer(mine[:size], np.uint8) != np.frombuffer(theirs[:size], np.uint8))
            place = position + (int(at[0]) if len(at) else size)
            if place < m.vocabulary * embedding_bytes:
                return f"tables: embedding of token {place // embedding_bytes}, byte {place % embedding_bytes}"
            place -= m.vocabulary * embedding_bytes
            return f"tables: rotary row of position {place // rotary_bytes}, byte {place % rotary_bytes}"
        position += len(mine)
    return None


def _aligned(a: Iterable[bytes], b: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The same bytes in pieces of equal length; the last pair differs in length where the totals do."""
    left, right = iter(a), iter(b)
    mine, theirs = next(left, b""), next(right, b"")
    while mine and theirs:
        size = min(len(mine), len(theirs))
        yield mine[:size], theirs[:size]
        mine, theirs = mine[size:] or next(left, b""), theirs[size:] or next(right, b"")
    if mine or theirs:
        yield mine, theirs


def summary(image: Image) -> list[str]:
    """What an image is, for people; reads the whole stream and checks every CRC."""
    m, p = image.manifest, image.params
    counts: dict[str, list[int]] = {}
    for record in image.records():
        entry = counts.setdefault(Destination(record.header["destination"]).name, [0, 0])
        entry[0], entry[1] = entry[0] + 1, entry[1] + len(record.raw)
    hashed = manifest.content_hash(image.folder)
    return [
        f"{image.folder}: {m.layers} layers, vocabulary {m.vocabulary}, context {m.max_positions}, {m.kv_heads} KV "
        f"heads of {m.head_dim}",
        f"  for design {m.design_hash} ({p.encoding}, {p.rows} rows, {p.ports} ports of {p.port_bytes} bytes); "
        f"{m.max_rows} rows a pass",
        *(f"  {name}: {count} records, {size:,} bytes" for name, (count, size) in sorted(counts.items())),
        f"  program: {m.program_with_head.count} commands with the head, {m.program_without_head.count} without",
        "  content hash: " + (m.content_hash if hashed == m.content_hash
                              else f"{m.content_hash} in the manifest, but the files have {hashed}"),
    ]


def is_image(path: Path) -> bool:
    return (path / manifest.MANIFEST_FILE).is_file()

