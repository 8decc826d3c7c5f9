"""Board files: part, clock, resources, memory ports and their timing, and the parameters of the design for that board.

A board is named (a file of ``boards/``) or given as a path. Everything in a file is checked; every refusal is one
:class:`TellmeError` that names the file, the key and what is allowed there. ``Board.resolved`` is board.json::

    name, description, part, clock_hz, resources     as in the file
    design          every design parameter; design_hash (hexadecimal)
    memory_bytes    size of the memory
    memory          name of the memory model that applies unless another is asked for
    memories        name → {description, start_offsets_bytes: one a port, ports: one {setting: value} a port}
    ports           names of the ports, m_axi_0 first

The settings under ``ports`` are those of the simulator's ``set`` (hls_py.emit.simulator).
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from hls_py.errors import TellmeError
from rtl.contract.design_params import DesignParams

DEFAULT_BOARD = "simulation"
BOARD_FILE = "board.json"
FOLDER = Path(__file__).resolve().parents[1] / "boards"
RESOURCES = ("lut", "ff", "dsp", "bram36", "uram")
RATE_UNIT = 1_000_000
MAX_OUTSTANDING = 64


@dataclass(frozen=True)
class PortTiming:
    """How the memory answers one port; the fields are settings of the simulator."""

    rate_beats_per_million_cycles: int
    """Between refreshes."""
    read_latency_cycles: int
    write_latency_cycles: int
    refresh_interval_cycles: int
    refresh_cycles: int
    turnaround_cycles: int
    outstanding_reads: int
    outstanding_writes: int


@dataclass(frozen=True)
class MemoryModel:
    description: str
    ports: tuple[PortTiming, ...]
    start_offsets_bytes: tuple[int, ...]
    """Where each port's linear sub-stream should start, relative to the others, modulo 64 KiB."""


@dataclass(frozen=True)
class Board:
    name: str
    description: str
    part: str | None
    clock_hz: int
    resources: Mapping[str, int] | None
    ports: tuple[str, ...]
    params: DesignParams
    memory_bytes: int
    default_memory: str
    memories: Mapping[str, MemoryModel]

    def resolved(self) -> dict[str, Any]:
        """What board.json holds."""
        return {
            "name": self.name, "description": self.description, "part": self.part, "clock_hz": self.clock_hz,
            "resources": dict(self.resources) if self.resources else None, "ports": list(self.ports),
            "design": self.params.to_dict(), "design_hash": f"{self.params.design_hash:032x}",
            "memory_bytes": self.memory_bytes, "memory": self.default_memory,
            "memories": {name: {"description": m.description, "start_offsets_bytes": list(m.start_offsets_bytes),
                                "ports": [dict(vars(p)) for p in m.ports]} for name, m in self.memories.items()},
        }

    def to_json(self) -> str:
        return json.dumps(self.resolved(), indent=1, sort_keys=True) + "\n"


def board_names() -> list[str]:
    """Boards that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_board(name_or_path: str | Path = DEFAULT_BOARD, overrides: Mapping[str, Any] | None = None) -> Board:
    """The board called so, or described by the file at that path; ``overrides`` replace parameters of its design."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and os.sep not in str(name_or_path):
        if str(name_or_path) not in board_names():
            raise TellmeError(f"there is no board {str(name_or_path)!r}{_near(str(name_or_path), board_names())}; "
                              f"boards are {', '.join(board_names())}, or the path of a .yaml file")
        path = FOLDER / f"{name_or_path}.yaml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except FileNotFoundError:
        raise TellmeError(f"there is no board file {path}; boards by name are {', '.join(board_names())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TellmeError(f"{path} can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise TellmeError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if overrides and isinstance(content, dict) and isinstance(content.get("design"), dict):
        content["design"] |= overrides
    return _board(path, content)


_BOARD_KEYS = {"description", "part", "clock_hz", "resources", "ports", "design", "memory"}


def _board(path: Path, content: Any) -> Board:
    top = _Section(str(path), "", content, _BOARD_KEYS)
    clock_hz = top.integer("clock_hz", 1_000_000, 2_000_000_000)
    part = top.take("part", lambda v: v is None or (isinstance(v, str) and v != ""), "null or the vendor's part number")
    resources = None
    if top.take("resources", lambda v: v is None or isinstance(v, dict), "null or a mapping") is not None:
        budget = top.section("resources", set(RESOURCES))
        resources = {name: budget.integer(name, 0, 10**9) for name in RESOURCES}
    ports = top.take("ports", lambda v: isinstance(v, list) and bool(v) and all(isinstance(p, str) and p for p in v)
                     and len(set(v)) == len(v), "a list of different port names")
    params = _design(top, ports)
    memory = top.section("memory", {"bytes", "default", "models"})
    models = memory.section("models", None)
    if not models.content:
        memory.refuse("models", {}, "at least one memory model")
    memories = {name: _memory_model(models.section(name, _MODEL_KEYS), params, clock_hz) for name in models.content}
    default = memory.take("default", lambda v: v in memories, f"one of {', '.join(memories)}")
    return Board(path.stem, top.text("description"), part, clock_hz, resources, tuple(ports), params,
                 memory.integer("bytes", 1 << 20, 1 << min(48, params.address_bits)), default, memories)


def _design(top: _Section, ports: list[str]) -> DesignParams:
    known = {f.name: f for f in fields(DesignParams)}
    section = top.section("design", set(known) - {"ports"})
    for name, value in section.content.items():
        wanted = type(known[name].default)
        if wanted is int:
            section.take(name, _is_integer, "an integer")
        elif wanted is str:
            section.take(name, lambda v: isinstance(v, str), "a string")
        else:
            section.take(name, lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v), "a list of names")
        assert value is not None
    try:
        return DesignParams.from_dict({**section.content, "ports": len(ports)})
    except ValueError as error:
        raise TellmeError(f"{top.file}: {error}") from None


_MODEL_KEYS = {"description", "port_bytes_per_second", "start_offsets_bytes", "read_latency_cycles",
               "write_latency_cycles", "refresh_interval_cycles", "refresh_cycles", "turnaround_cycles",
               "outstanding_reads", "outstanding_writes"}


def _memory_model(s: _Section, params: DesignParams, clock_hz: int) -> MemoryModel:
    interval = s.integer("refresh_interval_cycles", 0, 10**9, 0)
    refresh = s.integer("refresh_cycles", 0, max(0, interval - 1), 0)
    latency = {key: s.integer(key, 1, 100_000) for key in ("read_latency_cycles", "write_latency_cycles")}
    turnaround = s.integer("turnaround_cycles", 0, 10_000, 0)
    bursts = {key: s.integer(key, 1, MAX_OUTSTANDING, MAX_OUTSTANDING)
              for key in ("outstanding_reads", "outstanding_writes")}
    moving = 1 - refresh / interval if interval else 1.0
    peak = clock_hz * params.port_bytes * moving

    def allowed(rate: Any) -> bool:
        return isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate <= peak

    per_port = s.take("port_bytes_per_second",
                      lambda v: allowed(v) or (isinstance(v, list) and len(v) == params.ports and all(map(allowed, v))),
                      f"a number above 0, or one for each of the {params.ports} ports, of at most {peak:.4g} "
                      "(clock × width of a port, less refreshes)")
    rates = per_port if isinstance(per_port, list) else [per_port] * params.ports
    offsets = s.take("start_offsets_bytes",
                     lambda v: isinstance(v, list) and len(v) == params.ports
                     and all(_is_integer(x) and 0 <= x < 1 << 20 and x % 64 == 0 for x in v),
                     f"{params.ports} multiples of 64 below 1 MiB", [0] * params.ports)
    timings = tuple(PortTiming(max(1, min(RATE_UNIT, round(RATE_UNIT * rate / peak))),
                               refresh_interval_cycles=interval, refresh_cycles=refresh, turnaround_cycles=turnaround,
                               **latency, **bursts) for rate in rates)
    return MemoryModel(s.text("description"), timings, tuple(offsets))


_REQUIRED = object()


class _Section:
    """A mapping of a board file; unknown keys are refused at once, values when they are taken."""

    def __init__(self, file: str, path: str, content: Any, known: set[str] | None):
        self.file, self.path = file, path
        if not isinstance(content, dict):
            raise TellmeError(f"{file}: {path or 'the file'} must be a mapping of keys to values")
        self.content: dict[str, Any] = content
        for key in content:
            if not isinstance(key, str):
                raise TellmeError(f"{file}: key {key!r}{self._of()} is not a name")
            if known is not None and key not in known:
                raise TellmeError(f"{file}: unknown key {key!r}{self._of()}{_near(key, sorted(known))}; "
                                  f"known keys are {', '.join(sorted(known))}")

    def _of(self) -> str:
        return f" of {self.path}" if self.path else ""

    def _name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def refuse(self, key: str, value: Any, rule: str) -> None:
        raise TellmeError(f"{self.file}: {self._name(key)} is {value!r}; it must be {rule}")

    def take(self, key: str, allowed: Callable[[Any], bool], rule: str, default: Any = _REQUIRED) -> Any:
        if key not in self.content:
            if default is _REQUIRED:
                raise TellmeError(f"{self.file}: {self._name(key)} is missing; it must be {rule}")
            return default
        value = self.content[key]
        if not allowed(value):
            self.refuse(key, value, rule)
        return value

    def integer(self, key: str, least: int, most: int, default: Any = _REQUIRED) -> int:
        return self.take(key, lambda v: _is_integer(v) and least <= v <= most, f"an integer, {least} … {most}", default)

    def text(self, key: str) -> str:
        return self.take(key, lambda v: isinstance(v, str), "a text", "")

    def section(self, key: str, known: set[str] | None) -> _Section:
        if key not in self.content:
            raise TellmeError(f"{self.file}: {self._name(key)} is missing")
        return _Section(self.file, self._name(key), self.content[key], known)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _near(word: str, known: list[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {found[0]}?)" if found else ""


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that occurs twice: YAML would keep the last one without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} occurs twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)
