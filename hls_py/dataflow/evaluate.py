"""A kernel's graph as a list of NumPy calls: traced once, then evaluated without looking at types again."""

from collections.abc import Callable
from typing import Any

import numpy as np

from hls_py.dataflow.graph import Graph
from hls_py.dataflow.operations import OPERATIONS
from hls_py.golden import float32

Step = tuple[int, Callable[..., Any], tuple[int, ...], dict[str, Any]]


class Evaluator:
    """``evaluator(arguments) -> outputs``: canonical float32 and int64 arrays by name."""

    def __init__(self, graph: Graph):
        live = graph.live()
        self.size = len(graph.nodes)
        self.outputs = dict(graph.outputs)
        self.arguments: list[tuple[int, str]] = []
        self.constants: list[tuple[int, Any]] = []
        self.steps: list[Step] = []
        for node in graph.nodes:
            if node.index not in live:
                continue
            params = dict(node.params)
            if node.operation == "argument":
                self.arguments.append((node.index, params["name"]))
            elif node.operation == "constant":
                value = params["value"]  # of a float: its bit pattern
                self.constants.append((node.index, float32.bits_to_float(np.int64(value))[()] if node.type.is_float
                                       else np.int64(value)))
            else:
                self.steps.append((node.index, OPERATIONS[node.operation].evaluate, node.operands, params))

    def __call__(self, arguments: dict[str, Any]) -> dict[str, Any]:
        values: list[Any] = [None] * self.size
        for index, name in self.arguments:
            values[index] = arguments[name]
        for index, constant in self.constants:
            values[index] = constant
        for index, evaluate, operands, params in self.steps:
            values[index] = evaluate(*[values[o] for o in operands], **params)
        return {name: values[index] for name, index in self.outputs.items()}
