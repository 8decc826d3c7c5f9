"""What `make synth` counts: the cut of the accelerator into blocks, and resources and levels of a netlist.

No synthesis tool is needed.
"""

import json

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hls_py import design_folder
from hls_py.boards import load_board
from hls_py.cache import Cache
from hls_py.emit.accelerator import TOP
from hls_py.emit.verilator import build_root
from hls_py.progress import Progress
from rtl.streams.shared_module import SharedModule, emit_verilog
from tools import known_blocks, netlist
from tools.design_hierarchy import Hierarchy, partition


class Leaf(wiring.Component):
    def __init__(self):
        super().__init__({"a": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.o + self.a)
        return m


class Branch(wiring.Component):
    def __init__(self):
        super().__init__({"a": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.own = own = Leaf()
        m.submodules.common = SharedModule(common := Leaf(), "leaf")
        m.d.comb += [own.a.eq(self.a), common.a.eq(own.o ^ self.a), self.o.eq(common.o)]
        return m


class Tree(wiring.Component):
    def __init__(self):
        super().__init__({"a": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.left, m.submodules.right = left, right = Branch(), Branch()
        total = Signal(8)
        m.d.sync += total.eq(left.o + right.o)
        m.d.comb += [left.a.eq(self.a), right.a.eq(self.a), self.o.eq(total)]
        return m


@pytest.fixture(scope="module")
def tree() -> Hierarchy:
    return Hierarchy.read(emit_verilog(Tree(), "tree"), "tree")


def test_every_instance_is_found(tree):
    assert sorted(path for path, _ in tree.instances()) == [
        "", "left", "left.common", "left.own", "right", "right.common", "right.own"]


def test_equal_blocks_have_equal_text_and_black_boxes_only_ports(tree):
    modules = dict(tree.instances())
    left, right = (tree.block(path, modules[path], {f"{path}.common"}) for path in ("left", "right"))
    assert left == right
    assert "module block(" in left and "tree" not in left
    box = left[left.index("(* blackbox *)"):]
    assert "module leaf(" in box and "input [7:0] a;" in box and "always" not in box
    assert "blackbox" not in tree.block("left", modules["left"])


def test_rows_are_a_partition(tree):
    rows = partition(tree, {"top": [""], "branch": ["*"], "common": ["*.common"]})
    assert [path for path, _ in rows["branch"]] == ["left", "right"]
    for patterns, complaint in (({"branch": ["*"]}, "top"), ({"top": [""], "x": ["*"], "y": ["left"]}, "'x' and 'y'"),
                                ({"top": [""], "x": ["middle"]}, "no instance 'middle'")):
        with pytest.raises(ValueError, match=complaint):
            partition(tree, patterns)


def test_the_catalogue_covers_the_accelerator():
    """Every pattern is found, every line has a budget, and what is left to the units' own rows is only glue."""
    content = known_blocks.content()
    design = Cache(build_root(), Progress(quiet=True)).design(load_board().params)
    hierarchy = Hierarchy.read((design / design_folder.VERILOG_FILE).read_text(), TOP)
    rows = partition(hierarchy, {row: entry["instances"] for row, entry in content["blocks"].items()})
    assert {entry["line"] for entry in content["blocks"].values()} == set(content["budgets"])
    cuts = {path for instances in rows.values() for path, _ in instances}
    modules = dict(hierarchy.instances())
    for unit in ("", "attention", "vector"):
        children = {f"{unit}.{child}" if unit else child for child in hierarchy.modules[modules[unit]].children}
        assert children <= cuts, f"{sorted(children - cuts)} have no row"


def lut(inputs, output):
    pins = {f"I{n}": [bit] for n, bit in enumerate(inputs)} | {"O": [output]}
    return {"type": f"LUT{len(inputs)}", "parameters": {}, "connections": pins}


def register(before, after):
    return {"type": "FDRE", "parameters": {}, "connections": {"C": [2], "CE": ["1"], "D": [before], "Q": [after]}}


def dsp(a, b, p, **registers):
    return {"type": "DSP48E2", "connections": {"A": a, "B": b, "P": p},
            "parameters": {name: f"{value:032b}" for name, value in registers.items()}}


def used(cells, nets=()):
    names = {name: {"hide_name": 0, "bits": [bit]} for name, bit in nets}
    block = {"attributes": {}, "cells": {str(n): cell for n, cell in enumerate(cells)}, "netnames": names}
    box = {"attributes": {"blackbox": f"{1:032b}"}, "cells": {}, "netnames": {}}
    return netlist.usage(json.loads(json.dumps({"modules": {"block": block, "leaf": box}})), "block")


def test_levels_run_from_register_to_register():
    found = used([lut([3], 4), lut([4, 5], 6), register(6, 7), lut([7], 8), register(8, 9)],
                 [("a$4", 3), ("q", 7), ("$auto", 4)])
    assert (found.lut, found.ff, found.levels) == (3, 2, 2)
    assert found.path == ("a",)


def test_a_carry_chain_is_one_level():
    def carry(low, entry):
        return {"type": "CARRY4", "parameters": {}, "connections": {
            "CI": [entry], "CYINIT": ["0"], "S": [low, low + 1, low + 2, low + 3], "DI": ["0"] * 4,
            "O": [low + 10, low + 11, low + 12, low + 13], "CO": [low + 20, low + 21, low + 22, low + 23]}}
    found = used([lut([3], 100), carry(100, "0"), carry(200, 123), carry(300, 223), lut([313], 4)])
    assert found.levels == 3
    assert found.lut == 2


def test_memories_count_their_luts_and_only_addresses_lead_through():
    ram = {"type": "RAM32M16", "parameters": {}, "connections": {
        "ADDRA": [3], "ADDRH": [4], "DIA": [5, 6], "DOA": [7, 8], "WE": [9], "WCLK": [2]}}
    found = used([lut([20], 3), lut([21], 30), lut([30], 31), lut([31], 5), ram, lut([7], 22)])
    assert (found.lut, found.lut_memory) == (5 + 8, 8)
    assert found.levels == 3


def test_a_multiplier_without_registers_is_a_level():
    def levels(**registers):
        return used([lut([3], 4), dsp([4], [5], [6], **registers), lut([6], 7)]).levels
    assert levels(PREG=0, MREG=0, AREG=0, BREG=0) == 3
    assert levels(PREG=1) == levels(PREG=0, MREG=1) == 1


def test_block_memories_and_black_boxes():
    found = used([{"type": kind, "parameters": {}, "connections": {}} for kind in
                  ("RAMB36E2", "RAMB18E2", "RAMB18E2", "RAMB18E2", "URAM288", "leaf")])
    assert (found.bram36, found.uram, found.lut) == (2.5, 1, 0)
    with pytest.raises(ValueError, match="MYSTERY"):
        used([{"type": "MYSTERY", "parameters": {}, "connections": {}}])


def test_a_loop_is_refused():
    with pytest.raises(ValueError, match="loop"):
        used([lut([3, 4], 5), lut([5], 4)])
