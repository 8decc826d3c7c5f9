"""From a traced graph to cells: what will be hardware, one cell an operation and lane.

A cell is a constant, an input, a *unit* (a pipelined operator), or combinational. A combinational cell without logic
(a slice, a shift by a constant, a change of type) is a *view*. ``levels`` estimates a cell's logic depth in LUTs, with
a carry chain as one or two: the scheduler puts a register where a path would become too deep for a clock period.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hls_py.dataflow.graph import Graph, Node
from hls_py.dataflow.operations import OPERATIONS
from hls_py.dataflow.types import int_type
from hls_py.dataflow.units import Unit, lookup_unit, unit_of
from hls_py.golden import float32


@dataclass(frozen=True)
class Cell:
    """``inputs`` are indices of earlier cells; ``lane`` is None for what all lanes share; ``bits`` the width."""

    index: int
    operation: str
    params: tuple[tuple[str, Any], ...]
    inputs: tuple[int, ...]
    bits: int
    signed: bool
    lane: int | None
    levels: int = 0
    unit: Unit | None = None
    is_view: bool = False

    def param(self, name: str) -> Any:
        return dict(self.params)[name]

    @property
    def is_constant(self) -> bool:
        return self.operation == "constant"


# Operands of these make no difference between a float and its canonical form.
ABSORBING = {"float_add", "float_subtract", "float_multiply", "to_fixed", "canonical"}

LEVELS = {
    "float_negate": 1, "float_maximum": 4, "float_minimum": 4, "float_less": 4, "float_less_equal": 4, "float_equal": 4,
    "is_nan": 1, "scale_exponent": 3, "canonical": 2, "bits_to_float": 2, "int_add": 2, "int_subtract": 2,
    "int_negate": 2, "int_absolute": 3, "int_less": 2, "int_less_equal": 2, "int_equal": 2, "bit_and": 1, "bit_or": 1,
    "bit_xor": 1, "shift_left": 3, "shift_right": 3, "select": 1,
}
VIEWS = {"float_absolute", "float_bits", "bit_slice", "as_signed", "column"}


class Lowering:
    """Builds the cells of ``graph`` for ``lanes`` lanes; ``outputs`` maps (result, lane) to a cell."""

    def __init__(self, graph: Graph, lanes: int, wire_bits: dict[str, int], bfloat16: set[str]):
        self.graph = graph
        self.lanes = lanes
        self.wire_bits = wire_bits
        self.bfloat16 = bfloat16
        self.cells: list[Cell] = []
        self._known: dict[Any, int] = {}
        self._of_node: dict[tuple[int, int | None], int] = {}
        self._constants = self._fold()
        live = self._needed()
        for node in graph.nodes:
            if node.index in live:
                for lane in [None] if node.scalar else range(lanes):
                    self._of_node[node.index, lane] = self._lower(node, lane)
        self.outputs = {(name, lane): self._of_node[index, lane] for name, index in graph.outputs.items()
                        for lane in ([None] if graph.nodes[index].scalar else range(lanes))}

    def _fold(self) -> dict[int, Any]:
        """Values of the nodes that depend on constants only."""
        values: dict[int, Any] = {}
        with np.errstate(all="ignore"):
            for node in self.graph.nodes:
                if node.operation == "constant":
                    value = node.param("value")
                    values[node.index] = float32.bits_to_float(value) if node.type.is_float else np.int64(value)
                elif node.operands and all(operand in values for operand in node.operands):
                    arguments = [values[operand] for operand in node.operands]
                    values[node.index] = OPERATIONS[node.operation].evaluate(*arguments, **dict(node.params))
        return values

    def _operands(self, node: Node) -> tuple[int, ...]:
        """Operands, past a ``canonical`` that makes no difference to this operation."""
        def skip(index: int) -> int:
            operand = self.graph.nodes[index]
            return operand.operands[0] if operand.operation == "canonical" else index
        return tuple(map(skip, node.operands)) if node.operation in ABSORBING else node.operands

    def _needed(self) -> set[int]:
        """Nodes that become cells."""
        needed: set[int] = set()
        waiting = list(self.graph.outputs.values())
        while waiting:
            index = waiting.pop()
            if index not in needed:
                needed.add(index)
                if index not in self._constants:
                    waiting.extend(self._operands(self.graph.nodes[index]))
        return needed

    def _add(self, operation: str, params: dict[str, Any], inputs: tuple[int, ...], bits: int, signed: bool,
             lane: int | None, **kind: Any) -> int:
        key = (operation, tuple(sorted(params.items())), inputs, bits, signed, lane)
        if key not in self._known:
            self._known[key] = len(self.cells)
            self.cells.append(Cell(len(self.cells), operation, key[1], inputs, bits, signed, lane, **kind))
        return self._known[key]

    def _lower(self, node: Node, lane: int | None) -> int:
        bits, signed = node.type.bits, node.type.signed
        if node.index in self._constants:
            value = self._constants[node.index]
            value = int(float32.float_bits(value)) if node.type.is_float else int(value)
            return self._add("constant", {"value": value}, (), bits, signed, None)
        if node.operation == "argument":
            name = node.param("name")
            argument = self._add("argument", {"name": name}, (), self.wire_bits[name], signed, lane)
            if name in self.bfloat16:
                return self._add("from_bfloat16", {}, (argument,), 32, False, lane, is_view=True)
            return argument
        operands = [self.graph.nodes[index] for index in self._operands(node)]
        inputs = tuple(self._of_node[operand.index, None if operand.scalar else lane] for operand in operands)
        types = [operand.type for operand in operands]
        params = dict(node.params)
        if node.operation == "column":
            return self._lower_column(node, inputs, lane)
        unit = unit_of(node, types)
        is_view = node.operation in VIEWS or (
            node.operation in ("shift_left", "shift_right") and self.cells[inputs[1]].is_constant)
        levels = 0 if is_view or unit else LEVELS[node.operation]
        return self._add(node.operation, params, inputs, bits, signed, lane, levels=levels, unit=unit, is_view=is_view)

    def _lower_column(self, node: Node, inputs: tuple[int, ...], lane: int | None) -> int:
        """A column is a slice of a lookup that all columns of the table share."""
        columns = node.param("columns")
        types = [int_type(min(column), max(column)) for column in columns]
        widths = [column_type.bits for column_type in types]
        number = node.param("column")
        lookup = self._add("lookup", {"columns": columns}, inputs, sum(widths), False, lane,
                           unit=lookup_unit(columns, widths))
        start = sum(widths[:number])
        return self._add("column", {"start": start, "stop": start + widths[number]}, (lookup,), widths[number],
                         types[number].signed, lane, is_view=True)
