"""Resources and logic levels of a flat netlist of UltraScale+ cells, as Yosys writes it (write_json)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# LUTs that a memory or shift register takes; a SLICEM holds eight.
LUTS_OF_MEMORY = {
    "RAM32M16": 8, "RAM64M8": 8, "RAM32X16DR8": 8, "RAM64X8SW": 8, "RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2,
    "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8, "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4,
    "RAM512X1S": 8, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1}
LUT = re.compile(r"LUT[1-6]")
FLIP_FLOP = re.compile(r"FD[RSCP]E(_1)?")
FREE = {"BUFG", "BUFGCE", "INV", "MUXF7", "MUXF8", "MUXF9", "CARRY4", "CARRY8", "GND", "VCC"}
"""Cells that take no LUT of their own: a carry and a multiplexer lie beside the LUTs, an inversion within one."""
BIG = {"RAMB18E2", "RAMB36E2", "URAM288", "DSP48E2"}
TITLES = {"lut": "LUT", "lut_memory": "of it memory", "ff": "FF", "dsp": "DSP", "bram36": "BRAM36", "uram": "URAM"}
COUNTED = tuple(TITLES)
DSP_REGISTERS = {"A": ("AREG", "MREG"), "B": ("BREG", "MREG"), "C": ("CREG",), "D": ("DREG", "ADREG", "MREG")}


@dataclass(frozen=True)
class Usage:
    """What a block takes. ``path``: the names along its longest chain of logic."""

    lut: int
    lut_memory: int
    ff: int
    dsp: int
    bram36: float
    uram: int
    levels: int
    path: tuple[str, ...]


def usage(netlist: Mapping[str, Any], top: str) -> Usage:
    """Of module ``top``. Raises ``ValueError`` for a cell that this file doesn't know."""
    module = netlist["modules"][top]
    boxes = {name for name, m in netlist["modules"].items() if int(m["attributes"].get("blackbox", "0"), 2)
             and not re.fullmatch(r"[A-Z0-9_]+", name)}
    cells = Counter(cell["type"] for cell in module["cells"].values() if cell["type"] not in boxes)
    levels, path = longest_path(module)
    return Usage(**resources(cells, top), levels=levels, path=path)


def resources(cells: Counter[str], top: str) -> dict[str, Any]:
    """The fields of a ``Usage`` that follow from how often each type of cell occurs. Raises ``ValueError`` for a cell
    that this file doesn't know."""
    unknown = {cell for cell in cells if not (LUT.fullmatch(cell) or FLIP_FLOP.fullmatch(cell) or cell in FREE
                                              or cell in BIG or cell in LUTS_OF_MEMORY or cell == "$scopeinfo")}
    if unknown:
        raise ValueError(f"{top} has cells of unknown cost: {', '.join(sorted(unknown))}")
    memory = sum(LUTS_OF_MEMORY.get(cell, 0) * n for cell, n in cells.items())
    return {"lut": memory + sum(n for cell, n in cells.items() if LUT.fullmatch(cell)), "lut_memory": memory,
            "ff": sum(n for cell, n in cells.items() if FLIP_FLOP.fullmatch(cell)), "dsp": cells["DSP48E2"],
            "bram36": cells["RAMB36E2"] + cells["RAMB18E2"] / 2, "uram": cells["URAM288"]}


def longest_path(module: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Levels of the longest path from register or port to register or port, and the nets along it.

    A LUT, a LUT used as memory and a multiplier without registers are a level each; so is a carry chain, however long,
    beside the LUT in front of it; wide multiplexers (MUXF7 … 9) are none. Block RAM, UltraRAM and shift registers end
    a path, and so do black boxes. Raises ``ValueError`` at a loop.
    """
    drivers: dict[int, list[tuple[int, int]]] = {}
    for cell in module["cells"].values():
        for output, inputs in _arcs(cell):
            if isinstance(output, int):
                drivers.setdefault(output, []).extend((bit, cost) for bit, cost in inputs if isinstance(bit, int))
    level: dict[int, int] = {}
    before: dict[int, int] = {}
    under_way: set[int] = set()
    for start in drivers:
        stack = [start]
        while stack:
            bit = stack[-1]
            if bit in level:
                stack.pop()
                continue
            missing = [source for source, _ in drivers.get(bit, ()) if source not in level]
            if missing:
                under_way.add(bit)
                if any(source in under_way for source in missing):
                    raise ValueError(f"a loop of logic through {_names(module).get(bit, bit)}")
                stack.extend(missing)
                continue
            stack.pop()
            under_way.discard(bit)
            level[bit] = 0
            for source, cost in drivers.get(bit, ()):
                if bit not in before or level[source] + cost > level[bit]:
                    level[bit], before[bit] = max(level[bit], level[source] + cost), source
    if not level:
        return 0, ()
    bit = max(level, key=lambda b: level[b])
    names, path = _names(module), [bit]
    while path[-1] in before:
        path.append(before[path[-1]])
    shown = [names[b] for b in reversed(path) if b in names]
    return level[bit], tuple(shown)


def _names(module: Mapping[str, Any]) -> dict[int, str]:
    """Net bit → its best name; generated names are left out."""
    names: dict[int, str] = {}
    for name, net in module["netnames"].items():
        if net.get("hide_name") or name.startswith("$"):
            continue
        name = re.sub(r"\$\d+", "", name)  # numbers that make Amaranth's names differ
        for n, bit in enumerate(net["bits"]):
            shown = f"{name}[{n}]" if len(net["bits"]) > 1 else name
            if isinstance(bit, int) and (bit not in names or len(shown) < len(names[bit])):
                names[bit] = shown
    return names


def _arcs(cell: Mapping[str, Any]) -> Iterator[tuple[Any, list[tuple[Any, int]]]]:
    """(output bit, [(input bit, levels)]) of the logic in a cell."""
    kind, pins = cell["type"], cell["connections"]
    if LUT.fullmatch(kind):
        yield pins["O"][0], [(bit, 1) for name, bits in pins.items() if name != "O" for bit in bits]
    elif kind in ("MUXF7", "MUXF8", "MUXF9", "INV"):
        yield pins["O"][0], [(bit, 0) for name, bits in pins.items() if name != "O" for bit in bits]
    elif kind in ("CARRY4", "CARRY8"):
        enter = [(bit, 0) for name in ("CI", "CYINIT", "CI_TOP") for bit in pins.get(name, ())]
        for n in range(len(pins["S"])):
            through = enter + [(pins[name][k], 1) for name in ("S", "DI") for k in range(n)]
            yield pins["O"][n], [*through, (pins["S"][n], 1)]
            yield pins["CO"][n], [*through, (pins["S"][n], 1), (pins["DI"][n], 1)]
    elif kind.startswith("RAM") and kind in LUTS_OF_MEMORY:
        for output, address in (("DPO", "DPRA"), ("SPO", "A"), ("O", "A")):
            if output in pins:
                inputs = [(bit, 1) for name, bits in pins.items() if re.fullmatch(rf"{address}\d*", name)
                          for bit in bits]
                yield from ((bit, inputs) for bit in pins[output])
        for output in (name for name in pins if re.fullmatch(r"DO[A-H]", name)):
            for bit in pins[output]:
                yield bit, [(source, 1) for source in pins[f"ADDR{output[2:]}"]]
    elif kind == "DSP48E2":
        registers = {name: int(value, 2) for name, value in cell["parameters"].items() if name.endswith("REG")}
        if not registers.get("PREG"):
            inputs = [(bit, 1) for pin, kept in DSP_REGISTERS.items() if not any(map(registers.get, kept))
                      for bit in pins.get(pin, ())]
            for bit in pins.get("P", ()):
                yield bit, inputs
