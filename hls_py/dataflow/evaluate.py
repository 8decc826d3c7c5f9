"""A kernel's graph as a list of NumPy calls: traced once, then evaluated without looking at types again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hls_py.dataflow.graph import Graph
from hls_py.dataflow.operations import OPERATIONS
from hls_py.golden import float32

Step = tuple[int, Callable[..., Any], tuple[int, ...]]
"""Node, what computes it, the nodes it is computed from."""


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
                evaluate = OPERATIONS[node.operation].evaluate
                self.steps.append((node.index, partial(evaluate, **params) if params else evaluate, node.operands))

    def __call__(self, arguments: dict[str, Any]) -> dict[str, Any]:
        values: list[Any] = [None] * self.size
        for index, name in self.arguments:
            values[index] = arguments[name]
        for index, constant in self.constants:
            values[index] = constant
        for index, evaluate, operands in self.steps:  # the loop's own time counts: most arrays are short
            if len(operands) == 2:
                values[index] = evaluate(values[operands[0]], values[operands[1]])
            elif len(operands) == 1:
                values[index] = evaluate(values[operands[0]])
            else:
                values[index] = evaluate(*[values[o] for o in operands])
        return {name: values[index] for name, index in self.outputs.items()}
