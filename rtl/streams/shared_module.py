"""Verilog emission in which a repeated component is one module with many instances.

Amaranth elaborates every instance by itself, so sixteen lanes become sixteen copies of text, which every tool behind it
then has to read, simulate and synthesise sixteen times. Wrapping the lane in ``SharedModule`` emits it once:

    lane = Lane(tables=20, outputs=5)
    m.submodules.lane_0 = SharedModule(lane, "lane")         # connect lane.codes, lane.sums … as ever

Simulated by Amaranth or inside any other flow the wrapper is transparent; only ``emit_verilog`` and ``emit_design``
treat it as a module boundary. Shared modules may contain shared modules.
"""

import os
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import ClockSignal, Elaboratable, Instance, ResetSignal, Shape, Value
from amaranth.lib import wiring

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MODULE_PORT = re.compile(r"^  (?:input|output)(?: signed)?(?: \[\d+:\d+\])? (\S+?) ?;", re.MULTILINE)


@dataclass(frozen=True)
class EmittedDesign:
    """Verilog text of a design, the names of its shared modules, and whether the top has ``clk`` and ``rst``."""

    name: str
    verilog: str
    shared_modules: tuple[str, ...]
    clocked: bool


@dataclass(frozen=True)
class _Module:
    component: wiring.Component
    verilog: str
    clocked: bool


class EmitPlatform:
    """Collects the shared modules met while a design is elaborated; one object per emission."""

    def __init__(self, top_name: str):
        self.top_name = top_name
        self.modules: dict[str, _Module] = {}

    def module(self, component: wiring.Component, name: str) -> _Module:
        """The module called ``name``, emitted on its first use; ValueError if ``component`` differs from it."""
        if name == self.top_name:
            raise ValueError(f"shared module {name!r} has the name of the design's top")
        known = self.modules.get(name)
        if known is None:
            known = self.modules[name] = self._emit(component, name)
        elif not _surely_equal(known.component, component) and self._emit(component, name).verilog != known.verilog:
            raise ValueError(f"two different components share the module name {name!r}; give each its own name")
        # The module's text stands for every instance: the instance's own object is used up by that.
        component._MustUse__used = True  # type: ignore[attr-defined]
        return known

    def add_verbatim(self, component: wiring.Component, name: str, text: str, clocked: bool) -> None:
        """Add a module that ``component`` writes in Verilog itself; ValueError if ``name`` stands for another text."""
        known = self.modules.setdefault(name, _Module(component, text, clocked))
        if name == self.top_name or known.verilog != text:
            raise ValueError(f"two different modules share the name {name!r}; give each its own name")

    def _emit(self, component: wiring.Component, name: str) -> _Module:
        text = _to_verilog(component, name, self)
        extra = _clock_ports(component, text, name)
        if not extra <= {"clk", "rst"}:
            raise ValueError(f"shared module {name!r} may only use the clock domain 'sync'; it has {sorted(extra)}")
        return _Module(component, text, clocked=bool(extra))


class SharedModule(Elaboratable):
    """Marks ``component`` as a Verilog module of its own called ``name``.

    Parameters
    ----------
    component : the instance to wrap; its ports are connected as if it were not wrapped.
    name      : a plain Verilog identifier. Same name ⇔ same hardware: emission raises ValueError when two components
                of one name differ. Put distinguishing parameters into the name (``lane_g3_t20_q5``).
    """

    def __init__(self, component: wiring.Component, name: str):
        if not IDENTIFIER.fullmatch(name):
            raise ValueError(f"shared module name {name!r} is not a plain Verilog identifier")
        self.component = component
        self.name = name

    def elaborate(self, platform):
        if not isinstance(platform, EmitPlatform):
            return self.component
        module = platform.module(self.component, self.name)
        connections: dict[str, Any] = {}
        for path, member, value in self.component.signature.flatten(self.component):
            direction = "i_" if member.flow is wiring.In else "o_"
            connections[direction + "__".join(map(str, path))] = Value.cast(value)
        if module.clocked:
            connections |= {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        return Instance(self.name, **connections)


def emit_design(component: wiring.Component, name: str) -> EmittedDesign:
    """Elaborate ``component`` and write it as Verilog whose top module is ``name``; same input, same bytes."""
    platform = EmitPlatform(name)
    top = _to_verilog(component, name, platform)
    names = tuple(sorted(platform.modules))
    text = "".join(platform.modules[n].verilog for n in names) + top
    return EmittedDesign(name, text, names, clocked="clk" in _clock_ports(component, top, name))


def emit_verilog(component: wiring.Component, name: str) -> str:
    """The text of ``emit_design``."""
    return emit_design(component, name).verilog


def _to_verilog(component: wiring.Component, name: str, platform: EmitPlatform) -> str:
    # A yosys on PATH would replace the pinned one and change the bytes.
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    return verilog.convert(component, name=name, platform=platform, emit_src=False, strip_internal_attrs=True)


def _clock_ports(component: wiring.Component, text: str, name: str) -> set[str]:
    """Ports of the module ``name`` in ``text`` that the component's signature doesn't have: those of clock domains."""
    start = text.index(f"\nmodule {name}(")
    declared = MODULE_PORT.findall(text, start, text.index("\nendmodule", start))
    return set(declared) - {"__".join(map(str, path)) for path, _, _ in component.signature.flatten(component)}


def _surely_equal(a: wiring.Component, b: wiring.Component) -> bool:
    """True if two components have one class, signature and plain parameters; False means: compare their Verilog.

    Spares sixteen elaborations of a large lane. An attribute that is neither a port nor plain data decides for False.
    """
    if type(a) is not type(b) or a.signature != b.signature:
        return False
    members = set(a.signature.members)
    mine, others = ({k: v for k, v in vars(c).items() if k not in members and not k.startswith("_MustUse__")
                     and v is not c.signature} for c in (a, b))
    return mine.keys() == others.keys() and all(_is_plain(v) and v == others[k] for k, v in mine.items())


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(k) and _is_plain(v) for k, v in value.items())
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return all(_is_plain(getattr(value, f)) for f in value.__dataclass_fields__)
    return value is None or isinstance(value, int | float | str | bytes | Enum | Shape)
