"""The ports of a component, as its Verilog and so every simulation of it names them."""

from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import wiring


class Ports:
    """Ports of a component as its Verilog names them."""

    def __init__(self, component: wiring.Component, name: str | None = None):
        self.name = name or type(component).__name__.lower()
        self.shapes: dict[str, Any] = {}
        self.inputs: set[str] = set()
        for path, member, _ in component.signature.flatten(component):
            port = "__".join(map(str, path))
            if Shape.cast(member.shape).width == 0:
                continue  # no such port in the Verilog
            self.shapes[port] = member.shape
            if member.flow is wiring.In:
                self.inputs.add(port)
