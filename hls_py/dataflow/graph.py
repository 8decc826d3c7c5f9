"""A traced kernel: a graph of operations in the order in which they were written."""

from dataclasses import dataclass, field
from typing import Any

from hls_py.dataflow.types import Value, ValueType

Params = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Node:
    """One operation; ``operands`` are indices of earlier nodes.

    scalar : the value depends on scalar arguments and constants only, so all lanes share it.
    """

    index: int
    operation: str
    operands: tuple[int, ...]
    params: Params
    type: ValueType
    scalar: bool

    def param(self, name: str) -> Any:
        return dict(self.params)[name]


@dataclass
class Graph:
    """Nodes of a kernel. Equal operations on equal operands are one node."""

    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, int] = field(default_factory=dict)
    _known: dict[Any, int] = field(default_factory=dict)

    def add(self, operation: str, operands: tuple[int, ...], params: dict[str, Any], type: ValueType,
            scalar: bool) -> int:
        """Index of the node, new or known."""
        key = (operation, operands, tuple(sorted(params.items())), type, scalar)
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append(Node(len(self.nodes), operation, operands, key[2], type, scalar))
        return self._known[key]

    def live(self) -> set[int]:
        """Nodes on which an output depends."""
        reached: set[int] = set()
        waiting = list(self.outputs.values())
        while waiting:
            index = waiting.pop()
            if index not in reached:
                reached.add(index)
                waiting.extend(self.nodes[index].operands)
        return reached


class Traced(Value):
    """A value that stands for a node of a graph."""

    def __init__(self, graph: Graph, index: int):
        self.graph = graph
        self.index = index

    @property
    def node(self) -> Node:
        return self.graph.nodes[self.index]

    @property
    def type(self) -> ValueType:
        return self.node.type

    def __repr__(self) -> str:
        return f"<{self.node.operation} {self.node.type}>"
