"""One image on one device: loads it, and runs passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from host.devices.device import Device
from host.errors import HostError, PassError
from host.memory_map import MemoryMap, Scratch, StripedRegion
from rtl.contract import image_manifest as manifest_files
from rtl.contract import pass_descriptor as descriptor
from rtl.contract import register_map
from rtl.contract.command_words import COMMAND_BYTES
from rtl.contract.design_params import CONTRACT_VERSION, DesignParams
from rtl.contract.image_manifest import ImageManifest, Span
from rtl.contract.number_formats import TILE_POSITIONS
from rtl.contract.pass_descriptor import RowFlag
from rtl.contract.register_map import Control, Counter, Status

LOAD_CHUNK_BEATS = 1 << 16
NOTHING = RowFlag(0)
"""A row that is only fed."""


@dataclass(frozen=True)
class Row:
    """One row of a pass. ``token`` None: the argmax of the group's slot in the preceding pass."""

    token: int | None
    flags: RowFlag = NOTHING
    visible: Sequence[int] | None = None
    """New rows of its own group that it sees (numbers within the group); None: itself and the earlier ones."""
    position: int | None = None
    """Its position for the rotary embedding; None: past + its number."""


@dataclass(frozen=True)
class Group:
    """Rows of one sequence that stand behind ``past`` positions; ``blocks`` are its KV blocks, oldest first."""

    slot: int
    past: int
    rows: Sequence[Row]
    blocks: Sequence[int]


@dataclass(frozen=True)
class RowResult:
    """What a row asked for; None where it didn't."""

    token: int | None = None
    logits: np.ndarray | None = None
    top_tokens: np.ndarray | None = None
    top_logits: np.ndarray | None = None


@dataclass(frozen=True)
class PassResult:
    """Results of all rows, group after group."""

    rows: list[RowResult] = field(default_factory=list)


class Accelerator:
    """Holds an image in a device's memory.

    Raises :class:`HostError` when the image was packed for another design, is damaged, or doesn't fit the memory.
    """

    def __init__(self, device: Device, image_folder: Path, max_context: int | None = None, verify: bool = True):
        self.device = device
        self.manifest = read_manifest(image_folder)
        self._check(image_folder, verify)
        if max_context is not None and not 1 <= max_context <= self.manifest.max_positions:
            raise HostError(f"a context of {max_context} positions is asked for; this model has "
                            f"1 … {self.manifest.max_positions}")
        p = device.params
        try:
            sizes = [(image_folder / name).stat().st_size for name in manifest_files.CONTENT_FILES]
            self.map = MemoryMap(p, self.manifest, device.memory_base, device.memory_bytes, device.port_offsets,
                                 sizes[0] // p.beat_bytes, sizes[1] // p.beat_bytes, sizes[2], max_context)
            self._load_striped(image_folder / manifest_files.STREAM_FILE, self.map.stream)
            self._load_striped(image_folder / manifest_files.TABLES_FILE, self.map.tables)
            device.write_memory(self.map.program, (image_folder / manifest_files.PROGRAM_FILE).read_bytes())
        except OSError as error:
            raise HostError(f"{error.filename} can't be read ({error.strerror}); pack the model again") from None
        for name, region in (("KV_BASE", self.map.kv), ("TABLE_BASE", self.map.tables)):
            for port, base in enumerate(region.bases):
                device.write_register(register_map.address(name, 2 * port), base & 0xFFFFFFFF)
                device.write_register(register_map.address(name, 2 * port + 1), base >> 32)
        device.write_register(register_map.address("INTERRUPT_ENABLE"), 3)
        self._write_extents()

    @property
    def params(self) -> DesignParams:
        return self.device.params

    @property
    def max_rows(self) -> int:
        return self.manifest.max_rows

    @property
    def max_context(self) -> int:
        """Positions that a sequence may have: what was asked for, the model has, and the memory holds."""
        return min(self.map.context, self.map.blocks * TILE_POSITIONS)

    # ---- loading --------------------------------------------------------------------------------------------------

    def _check(self, folder: Path, verify: bool) -> None:
        d = self.device
        if d.read_register(register_map.address("ID")) != register_map.IDENTITY:
            raise HostError("the device has no tellme accelerator behind its registers; load the bitstream first")
        version = d.read_register(register_map.address("CONTRACT_VERSION"))
        if version != CONTRACT_VERSION:
            raise HostError(f"the device's contract version is {version}, this software's {CONTRACT_VERSION}; "
                            "generate the design again")
        if self.manifest.contract_version != CONTRACT_VERSION:
            raise HostError(f"{folder} has contract version {self.manifest.contract_version}, this software "
                            f"{CONTRACT_VERSION}; pack the model again")
        found = sum(d.read_register(register_map.address("DESIGN_HASH", i)) << 32 * i for i in range(4))
        if f"{found:032x}" != self.manifest.design_hash:
            raise HostError(f"{folder} was packed for design {self.manifest.design_hash[:8]}…, the device is "
                            f"{f'{found:032x}'[:8]}…; pack the model for this design")
        if verify and content_hash(folder) != self.manifest.content_hash:
            raise HostError(f"{folder}: the files don't have the hash that image.json states; pack the model again")

    def _load_striped(self, path: Path, region: StripedRegion) -> None:
        p = self.params
        with open(path, "rb") as file:
            first = 0
            while raw := file.read(LOAD_CHUNK_BEATS * p.beat_bytes):
                beats = np.frombuffer(raw, np.uint8).reshape(-1, p.ports, p.port_bytes)
                for port, base in enumerate(region.bases):
                    self.device.write_memory(base + first * p.port_bytes, np.ascontiguousarray(beats[:, port]))
                first += len(beats)

    def _write_extents(self) -> None:
        p = self.params
        raw = b""
        for span in (self.manifest.layers_extent, self.manifest.head_extent):
            entry = span.count.to_bytes(8, "little")
            entry += b"".join((b + span.first * p.port_bytes).to_bytes(8, "little") for b in self.map.stream.bases)
            raw += entry.ljust(descriptor.extent_bytes(p.ports), b"\0")
        for scratch in self.map.scratch:
            self.device.write_memory(scratch.extents, raw)

    # ---- passes ---------------------------------------------------------------------------------------------------

    def run(self, groups: Sequence[Group]) -> PassResult:
        """Run one pass.

        Raises :class:`PassError` with the cause when it stops, :class:`HostError` when it can't be built.
        """
        wants = self.start(groups)
        self._finish()
        return PassResult([self._result(n, flags, self.map.scratch[0]) for n, flags in enumerate(wants)])

    def start(self, groups: Sequence[Group]) -> list[RowFlag]:
        """Queue a pass without waiting for it; returns what its rows want. One pass at a time."""
        scratch = self.map.scratch[0]
        wants = [row.flags for group in groups for row in group.rows]
        self.device.write_memory(scratch.descriptor, self._descriptor(groups, scratch, any(wants)))
        self._push(scratch.descriptor)
        return wants

    def _push(self, address: int) -> None:
        self.device.write_register(register_map.address("PASS_ADDRESS_LOW"), address & 0xFFFFFFFF)
        self.device.write_register(register_map.address("PASS_ADDRESS_HIGH"), address >> 32)

    def _finish(self) -> None:
        d = self.device
        while True:
            status = Status(d.read_register(register_map.address("STATUS")))
            if status & Status.ERROR:
                cause = d.read_register(register_map.address("ERROR_CAUSE"))
                info = d.read_register(register_map.address("ERROR_INFO"))
                d.write_register(register_map.address("CONTROL"), int(Control.ABORT))
                d.write_register(register_map.address("CONTROL"), int(Control.ACKNOWLEDGE))
                raise PassError(cause, info)
            if not status & Status.BUSY:
                pending = d.read_register(register_map.address("INTERRUPT_STATUS"))
                d.write_register(register_map.address("INTERRUPT_STATUS"), pending)
                return
            d.wait()

    def _descriptor(self, groups: Sequence[Group], scratch: Scratch, with_head: bool) -> bytes:
        m, p = self.manifest, self.params
        count = sum(len(group.rows) for group in groups)
        if not 1 <= count <= self.max_rows or any(not group.rows for group in groups):
            raise HostError(f"a pass has {count} rows; this model runs 1 … {self.max_rows} rows a pass on this design")
        program: Span = m.program_with_head if with_head else m.program_without_head
        raw = descriptor.PASS_HEADER.pack(
            magic=descriptor.PASS_MAGIC, rows=count, groups=len(groups),
            program_address=self.map.program + program.first * COMMAND_BYTES, commands=program.count,
            extents=2 if with_head else 1, extents_address=scratch.extents, logits_address=scratch.logits,
            logits_row_bytes=scratch.logits_row_bytes, design_id=p.design_hash & 0xFFFFFFFF,
            results_address=scratch.results)
        first = 0
        entries = b""
        lists = np.zeros((len(groups), scratch.list_bytes // 4), "<u4")
        for n, group in enumerate(groups):
            end = group.past + len(group.rows)
            needed = -(-end // TILE_POSITIONS)
            if end > self.max_context:
                raise HostError(f"position {end} is beyond the context of {self.max_context} positions")
            if len(group.blocks) < needed:
                raise HostError(f"{end} positions need {needed} KV blocks, the sequence has {len(group.blocks)}")
            lists[n, :needed] = list(group.blocks)[needed - 1::-1]
            for i, row in enumerate(group.rows):
                seen = range(i + 1) if row.visible is None else row.visible
                from_slot = row.token is None
                raw += descriptor.ROW_ENTRY.pack(
                    position=group.past + i if row.position is None else row.position,
                    token=group.slot if row.token is None else row.token, slot=group.slot,
                    flags=row.flags | (RowFlag.TOKEN_FROM_SLOT if from_slot else NOTHING),
                    visible=sum(1 << first + j for j in seen))
            entries += descriptor.GROUP_ENTRY.pack(
                first_row=first, rows=len(group.rows), past=group.past, blocks=needed,
                list_address=scratch.lists + n * scratch.list_bytes)
            first += len(group.rows)
        self.device.write_memory(scratch.lists, lists.reshape(-1).view(np.uint8))
        return raw + entries

    def _result(self, number: int, flags: RowFlag, scratch: Scratch) -> RowResult:
        logits = token = top_tokens = top_logits = None
        if flags & RowFlag.LOGITS:
            at = scratch.logits + number * scratch.logits_row_bytes
            logits = self.device.read_memory(at, 4 * self.manifest.vocabulary).view("<f4")
        if flags & (RowFlag.ARGMAX | RowFlag.TOP_K):
            stride = descriptor.result_bytes(self.params.top_k)
            raw = self.device.read_memory(scratch.results + number * stride, stride)
            header = descriptor.RESULT_HEADER.unpack(raw.tobytes())
            token = int(header["token"])
            if flags & RowFlag.TOP_K:
                start = descriptor.RESULT_HEADER.size_bytes
                pairs = raw[start:start + 8 * int(header["count"])].reshape(-1, 8)
                top_tokens = np.ascontiguousarray(pairs[:, :4]).view("<u4")[:, 0].astype(np.int64)
                top_logits = np.ascontiguousarray(pairs[:, 4:]).view("<f4")[:, 0]
                order = np.lexsort((top_tokens, -top_logits))
                top_tokens, top_logits = top_tokens[order], top_logits[order]
        return RowResult(token, logits, top_tokens, top_logits)

    def counters(self) -> dict[str, int]:
        """Name → 64-bit value of every performance counter."""
        d = self.device
        return {c.name: d.read_register(register_map.address("COUNTER", 2 * c))
                | d.read_register(register_map.address("COUNTER", 2 * c + 1)) << 32 for c in Counter}


def read_manifest(folder: Path) -> ImageManifest:
    """Raises :class:`HostError` when ``folder`` has no image.json, or one that no packing writes."""
    try:
        found = ImageManifest.from_json((folder / manifest_files.MANIFEST_FILE).read_text(encoding="utf-8"))
        _check_values(found)
        return found
    except OSError as error:
        raise HostError(f"{folder} is no image folder ({error.strerror}: {manifest_files.MANIFEST_FILE})") from None
    except (ValueError, TypeError) as error:
        raise HostError(f"{folder}/{manifest_files.MANIFEST_FILE} is damaged ({error}); pack the model again") from None


def _check_values(manifest: ImageManifest) -> None:
    """Raises ``ValueError`` naming the first value that is impossible."""
    for name, value in vars(manifest).items():
        if name.endswith("_hash"):
            possible = isinstance(value, str)
        elif isinstance(value, Span):
            possible = all(type(n) is int and n >= 0 for n in (value.first, value.count))
        else:
            possible = type(value) is int and value >= 1
        if not possible:
            raise ValueError(f"{name} is {value!r}")


def read_design(folder: Path) -> DesignParams:
    path = folder / manifest_files.DESIGN_FILE
    try:
        return DesignParams.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise HostError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise HostError(f"{path}: {error}") from None


def content_hash(folder: Path) -> str:
    """The manifest's hash over the files of ``folder``; :class:`HostError` when one can't be read."""
    try:
        return manifest_files.content_hash(folder)
    except OSError as error:
        raise HostError(f"{error.filename} can't be read ({error.strerror}); pack the model again") from None
