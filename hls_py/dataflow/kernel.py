"""``@kernel``: a Python function that is both a golden and a pipeline.

    @kernel
    def dequantise(acc: Int32, scale: Scalar[Float32]) -> Float32:
        return to_float(acc) * scale

    dequantise(np_acc, np_scale)          # NumPy: the golden, bit for bit what the pipeline computes
    dequantise.pipeline(lanes=4, ii=1)    # an Amaranth component
"""

import functools
import inspect
import typing
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hls_py.dataflow.evaluate import Evaluator
from hls_py.dataflow.graph import Graph, Traced
from hls_py.dataflow.types import BFloat16, Scalar, Value, ValueType
from hls_py.golden import float32

BFLOAT16_MASK = 0xFFFF0000


@dataclass(frozen=True)
class Port:
    """An argument or a result. ``wire_bits`` is its width in a stream's payload."""

    name: str
    type: ValueType
    wire_bits: int
    scalar: bool = False
    bfloat16: bool = False


class Kernel:
    """An element-wise function; see the module's docstring. Several results come as a named tuple."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.name = function.__name__
        self.signature = inspect.signature(function)
        hints = typing.get_type_hints(function)
        results = hints.pop("return", None)
        if set(hints) != set(self.signature.parameters) or results is None:
            raise TypeError(f"kernel {self.name}: annotate every argument and the result")
        self.arguments = tuple(_port(name, hints[name]) for name in self.signature.parameters)
        if isinstance(results, dict):
            fields = results
        elif issubclass(results, tuple):
            fields = results.__annotations__
        else:
            fields = {"value": results}
        self.results = tuple(_port(name, hint) for name, hint in fields.items())
        self._several = namedtuple(self.name, list(fields)) if len(fields) > 1 else None  # type: ignore[misc]
        self._evaluator: Evaluator | None = None
        functools.update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != len(self.arguments):  # binding is slow, and names what is wrong
            bound = self.signature.bind(*args, **kwargs).arguments
        else:
            bound = {port.name: value for port, value in zip(self.arguments, args)}
        if any(isinstance(x, Value) for x in bound.values()):
            return self.function(**bound)  # inside another kernel
        if self._evaluator is None:
            self._evaluator = Evaluator(self.trace())
        values = {port.name: _into_kernel(port, bound[port.name]) for port in self.arguments}
        with np.errstate(all="ignore"):
            found = self._evaluator(values)
            arrays = [_out_of_kernel(port, found[port.name]) for port in self.results]
        return self._several(*arrays) if self._several else arrays[0]

    def trace(self, types: dict[str, ValueType] | None = None) -> Graph:
        """The kernel's graph; ``types`` narrows integer arguments."""
        graph = Graph()
        values = {}
        for port in self.arguments:
            argument = graph.add("argument", (), {"name": port.name}, (types or {}).get(port.name, port.type),
                                 port.scalar)
            if port.type.is_float:
                argument = graph.add("canonical", (argument,), {}, port.type, port.scalar)
            values[port.name] = Traced(graph, argument)
        found = self._named(self.function(**values))
        for port in self.results:
            result = found[port.name]
            if not isinstance(result, Traced):
                raise TypeError(f"kernel {self.name}: result {port.name} is constant")
            if result.type.is_float != port.type.is_float:
                raise TypeError(f"kernel {self.name}: result {port.name} is {result.type}, annotated {port.type}")
            if not result.type.is_float and not port.type.low <= result.type.low <= result.type.high <= port.type.high:
                raise TypeError(f"kernel {self.name}: result {port.name} lies in {result.type.low} … "
                                f"{result.type.high}, which {port.wire_bits} bits do not hold")
            graph.outputs[port.name] = result.index
        return graph

    def pipeline(self, lanes: int = 1, ii: int = 1, tag_bits: int = 0, **options: Any) -> Any:
        """The kernel as an Amaranth component (see ``hls_py.dataflow.pipeline.Pipeline``)."""
        from hls_py.dataflow.pipeline import Pipeline
        return Pipeline(self, lanes=lanes, ii=ii, tag_bits=tag_bits, **options)

    def _named(self, result: Any) -> dict[str, Any]:
        """The function's result by name, whichever way it gave it."""
        if not self._several:
            return {"value": result}
        if isinstance(result, dict):
            if list(result) != [port.name for port in self.results]:
                raise TypeError(f"kernel {self.name}: results {list(result)} are not as annotated")
            return result
        return dict(zip([port.name for port in self.results], result, strict=True))


def kernel(function: Callable[..., Any]) -> Kernel:
    """Make a function of traced values a ``Kernel``."""
    return Kernel(function)


def _port(name: str, annotation: Any) -> Port:
    scalar = typing.get_origin(annotation) is Scalar
    hint: Any = typing.get_args(annotation)[0] if scalar else annotation
    if not (inspect.isclass(hint) and issubclass(hint, Value) and hasattr(hint, "wire_bits")):
        raise TypeError(f"{name}: {hint!r} is not a kernel type")
    return Port(name, hint.type, hint.wire_bits, scalar, hint is BFloat16)  # type: ignore[attr-defined]


def _into_kernel(port: Port, data: Any) -> Any:
    data = np.asarray(data)
    if not port.type.is_float:
        if data.dtype.kind not in "iub":
            raise TypeError(f"argument {port.name} takes integers, not {data.dtype}")
        return data.astype(np.int64)
    if data.dtype.kind != "f":
        raise TypeError(f"argument {port.name} takes floats, not {data.dtype}")
    data = np.asarray(data, np.float32)  # made canonical by the graph
    return float32.bits_to_float(float32.float_bits(data) & BFLOAT16_MASK) if port.bfloat16 else data


def _out_of_kernel(port: Port, value: Any) -> Any:
    array = np.asarray(value)
    if port.type.is_float:
        array = np.asarray(array, np.float32)
        return float32.bits_to_float(float32.float_bits(array) & BFLOAT16_MASK) if port.bfloat16 else array
    if port.wire_bits == 1:
        return array.astype(np.bool_)
    width = next(w for w in (8, 16, 32, 64) if w >= port.wire_bits)
    return array.astype(f"{'i' if port.type.signed else 'u'}{width // 8}")
