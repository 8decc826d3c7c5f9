"""A pass descriptor out of memory, checked as the hardware checks it."""

from __future__ import annotations

from dataclasses import dataclass

from hls_py.golden.machine.memory import Memory
from rtl.contract import pass_descriptor as layout
from rtl.contract.design_params import DesignParams
from rtl.contract.register_map import ErrorCause


class StopError(Exception):
    """The pass stops with a cause, as the hardware's STATUS would say."""

    def __init__(self, cause: ErrorCause, info: int, text: str = ""):
        super().__init__(f"{cause.name} ({info:#x}) {text}".strip())
        self.cause, self.info = cause, info


@dataclass(frozen=True)
class Row:
    position: int
    token: int
    slot: int
    flags: layout.RowFlag
    visible: int


@dataclass(frozen=True)
class Group:
    first_row: int
    rows: int
    past: int
    list_address: int
    blocks: int


@dataclass(frozen=True)
class Extent:
    beats: int
    bases: tuple[int, ...]


@dataclass(frozen=True)
class Pass:
    header: dict[str, int]
    rows: list[Row]
    groups: list[Group]
    extents: list[Extent]
    program: bytes


def read_pass(memory: Memory, address: int, params: DesignParams) -> Pass:
    """Raises :class:`StopError` with BAD_PASS, BAD_ROW or WRONG_DESIGN."""
    try:
        raw = memory.read(address, layout.PASS_HEADER.size_bytes).tobytes()
    except ValueError as error:
        raise StopError(ErrorCause.READ_ERROR, 0, str(error)) from None
    header = {name: int(value) for name, value in layout.PASS_HEADER.unpack(raw).items()}
    count, groups = header["rows"], header["groups"]
    if header["magic"] != layout.PASS_MAGIC or not 1 <= groups <= count <= params.rows or not header["commands"]:
        raise StopError(ErrorCause.BAD_PASS, 0)
    if header["design_id"] != params.design_hash & 0xFFFFFFFF:
        raise StopError(ErrorCause.WRONG_DESIGN, 0)
    rows = []
    at = address + layout.PASS_HEADER.size_bytes
    for n in range(count):
        f = {k: int(v) for k, v in layout.ROW_ENTRY.unpack(memory.read(at, 16).tobytes()).items()}
        at += layout.ROW_ENTRY.size_bytes
        flags = layout.RowFlag(f["flags"])
        from_slot = f["token"] if flags & layout.RowFlag.TOKEN_FROM_SLOT else 0
        if max(f["slot"], from_slot) >= params.max_slots or f["visible"] >> count:
            raise StopError(ErrorCause.BAD_ROW, n)
        rows.append(Row(f["position"], f["token"], f["slot"], flags, f["visible"]))
    group_list = []
    next_row = 0
    for n in range(groups):
        f = {k: int(v) for k, v in layout.GROUP_ENTRY.unpack(memory.read(at, 32).tobytes()).items()}
        at += layout.GROUP_ENTRY.size_bytes
        if f["first_row"] != next_row or not f["rows"] or next_row + f["rows"] > count:
            raise StopError(ErrorCause.BAD_ROW, 0x100 + n)
        if f["blocks"] != -(-(f["past"] + f["rows"]) // params.tile_positions):
            raise StopError(ErrorCause.BAD_ROW, 0x100 + n)
        next_row += f["rows"]
        group_list.append(Group(f["first_row"], f["rows"], f["past"], f["list_address"], f["blocks"]))
    if next_row != count:
        raise StopError(ErrorCause.BAD_ROW, 0x100 + groups - 1)
    size = layout.extent_bytes(params.ports)
    extents = []
    for n in range(header["extents"]):
        raw = memory.read(header["extents_address"] + n * size, size).tobytes()
        words = [int.from_bytes(raw[i:i + 8], "little") for i in range(0, size, 8)]
        extents.append(Extent(words[0] & 0xFFFFFFFF, tuple(words[1:1 + params.ports])))
    program = memory.read(header["program_address"], 32 * header["commands"]).tobytes()
    return Pass(header, rows, group_list, extents, program)
