"""A scheduled kernel as an Amaranth stream component."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hls_py.dataflow.cells import Cell, Lowering
from hls_py.dataflow.circuits import combinational
from hls_py.dataflow.delays import DelayLines
from hls_py.dataflow.schedule import schedule
from hls_py.dataflow.types import int_type
from hls_py.dataflow.units import PORTS, make
from rtl.streams.shared_module import SharedModule

if TYPE_CHECKING:
    from hls_py.dataflow.kernel import Kernel, Port

TAG = -1
"""Key of the tag among the delayed values; cells have the others."""


class Pipeline(wiring.Component):
    """``o = kernel(i)`` on ``lanes`` elements a word, one word every ``ii`` cycles.

    Parameters
    ----------
    lanes    : elements of a word, consecutive ones of a row; ≥ 1. Scalar arguments are one for all lanes.
    ii       : cycles between words; ≥ 1. Above 1, operators are shared among lanes and operations.
    tag_bits : width of a field that rides along; 0: none.
    ranges   : of integer arguments that don't take all of theirs ({"acc": signed_range(20)}): their ports
               and logic shrink with it.

    Streams
    -------
    i : a field for each argument, an array of ``lanes`` elements unless it is scalar; then ``tag``.
    o : a field for each result, an array unless it depends on scalars only; then ``tag``.
        Raw bits: a float's pattern, an integer in two's complement.

    Timing: a word's results are valid ``latency_cycles`` after it is taken, words are taken ``interval_cycles`` apart,
    when nobody stalls. ``o.valid & ~o.ready`` freezes everything; ``i.ready`` depends on ``o.ready`` in the same cycle.
    ``resources`` counts operators by kind and the bits that wait for others (``delay_bits``).
    """

    def __init__(self, kernel: "Kernel", lanes: int = 1, ii: int = 1, tag_bits: int = 0,
                 ranges: Mapping[str, range] | None = None):
        if lanes < 1 or ii < 1 or tag_bits < 0:
            raise ValueError(f"lanes {lanes}, ii {ii}, tag_bits {tag_bits}: must be at least 1, 1, 0")
        self.kernel = kernel
        self.lanes = lanes
        self.ii = ii
        self.tag_bits = tag_bits
        narrower = {name: int_type(taken.start, taken.stop - 1) for name, taken in (ranges or {}).items()}
        graph = kernel.trace(narrower)
        wire_bits = {port.name: narrower[port.name].bits if port.name in narrower else port.wire_bits
                     for port in kernel.arguments}
        lowering = Lowering(graph, lanes, wire_bits, {port.name for port in kernel.arguments if port.bfloat16})
        self.cells = lowering.cells
        self.schedule = schedule(self.cells, ii)
        self._outputs = lowering.outputs
        self.latency_cycles = max(1, *(self._registered(index) for index in self._outputs.values()))
        self.interval_cycles = ii
        self._scalar_results = {name for name, lane in self._outputs if lane is None}
        self._delays = DelayLines(ii)
        self._plan_delays()
        self.resources = {
            **{kind: sum(number for (k, _), number in self.schedule.operator_count.items() if k == kind)
               for kind in PORTS if any(k == kind for k, _ in self.schedule.operator_count)},
            "delay_bits": self._delays.bits}

        def field(port: "Port", bits: int, scalar: bool) -> Any:
            return bits if scalar else data.ArrayLayout(bits, lanes)

        tag = {"tag": tag_bits} if tag_bits else {}
        arguments = {port.name: field(port, wire_bits[port.name], port.scalar) for port in kernel.arguments}
        results = {port.name: field(port, port.wire_bits, port.name in self._scalar_results)
                   for port in kernel.results}
        super().__init__({"i": In(stream.Signature(data.StructLayout({**arguments, **tag}))),
                          "o": Out(stream.Signature(data.StructLayout({**results, **tag})))})

    def _registered(self, index: int) -> int:
        """First cycle in which a cell's value stands behind a register."""
        cell = self.cells[index]
        while cell.is_view:
            cell = self.cells[cell.inputs[0]]
        if cell.is_constant:
            return 0
        return self.schedule.available[cell.index] + (0 if cell.unit else 1)

    # A value is asked for at a cycle; a view that widens is formed there from its operand, everything else waits.

    def _is_widening_view(self, cell: Cell) -> bool:
        return cell.is_view and cell.bits >= self.cells[cell.inputs[0]].bits

    def _plan_delays(self) -> None:
        for cell in self.cells:
            if not self._is_widening_view(cell):
                for operand in cell.inputs:
                    self._plan(operand, self.schedule.start[cell.index])
        for index in self._outputs.values():
            self._plan(index, self.latency_cycles)
        if self.tag_bits:
            self._delays.plan(TAG, self.tag_bits, 0, self.latency_cycles)

    def _plan(self, index: int, cycle: int) -> None:
        cell = self.cells[index]
        if cell.is_constant:
            return
        if self._is_widening_view(cell):
            for operand in cell.inputs:
                self._plan(operand, cycle)
        else:
            self._delays.plan(index, cell.bits, self.schedule.available[index], cycle)

    def elaborate(self, platform):
        m = Module()
        enable = self._control(m)
        self._delays.begin(m, enable, self._phase)
        values: dict[int, Value] = {}

        def at(index: int, cycle: int) -> Value:
            cell = self.cells[index]
            if cell.is_constant:
                return Const(cell.param("value"), Shape(cell.bits, cell.signed))
            if self._is_widening_view(cell):
                value = combinational(m, cell, [at(i, cycle) for i in cell.inputs], self._constants(cell))[:cell.bits]
            else:
                value = self._delays.get(index, values[index], cycle)
            return value.as_signed() if cell.signed else value

        units: dict[tuple, list[list[tuple[Cell, list[Value]]]]] = {
            key: [[] for _ in range(count)] for key, count in self.schedule.operator_count.items()}
        outputs: dict[tuple, list[Signal]] = {}
        for number, (key, operators) in enumerate(units.items()):
            outputs[key] = [Signal(self._unit_bits(key), name=f"unit{number}_{n}") for n in range(len(operators))]

        for cell in self.cells:  # operands come before their users
            if cell.is_constant or self._is_widening_view(cell):
                continue
            if cell.operation == "argument":
                field = self.i.p[cell.param("name")]
                values[cell.index] = Value.cast(field if cell.lane is None else field[cell.lane])
                continue
            operands = [at(i, self.schedule.start[cell.index]) for i in cell.inputs]
            if cell.unit:
                key, number = self.schedule.operator[cell.index]
                values[cell.index] = outputs[key][number]
                if cell.operation == "float_subtract":
                    operands[1] = operands[1] ^ (1 << 31)
                units[key][number].append((cell, operands))
            else:
                signal = Signal(cell.bits, name=f"{cell.operation}_{cell.index}")
                m.d.comb += signal.eq(combinational(m, cell, operands, self._constants(cell)))
                values[cell.index] = signal

        for key, operators in units.items():
            for number, jobs in enumerate(operators):
                self._operator(m, key, number, jobs, outputs[key][number], enable)

        for (name, lane), index in self._outputs.items():
            field = self.o.p[name]
            value = at(index, self.latency_cycles)
            m.d.comb += Value.cast(field if lane is None else field[lane]).eq(self._to_wire(name, value))
        if self.tag_bits:
            m.d.comb += self.o.p.tag.eq(self._delays.get(TAG, self.i.p.tag, self.latency_cycles))
        return m

    def _to_wire(self, name: str, value: Value) -> Value:
        port = next(port for port in self.kernel.results if port.name == name)
        return value[16:] if port.bfloat16 else value

    def _constants(self, cell: Cell) -> list[int | None]:
        return [self.cells[i].param("value") if self.cells[i].is_constant else None for i in cell.inputs]

    def _unit_bits(self, key: tuple) -> int:
        return next(cell.bits for cell in self.cells if cell.unit and cell.unit.key == key)

    def _control(self, m: Module) -> Value:
        """Valid bits of the words under way; returns the enable of everything."""
        latency = self.latency_cycles
        valid, in_flight = Signal(latency), Signal()
        self._phase = Signal(range(self.ii)) if self.ii > 1 else Const(0, 1)
        advance, enable, taken = Signal(), Signal(), Signal()
        at_start = self._phase == 0 if self.ii > 1 else Const(1)
        m.d.comb += [
            self.o.valid.eq(valid[-1]),
            advance.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(advance & at_start),
            taken.eq(self.i.valid & self.i.ready),
            enable.eq(advance & (in_flight | self.i.valid)),  # an idle pipeline rests
        ]
        next_phase = Mux(self._phase == self.ii - 1, 0, self._phase + 1) if self.ii > 1 else Const(0)
        with m.If(enable):
            m.d.sync += [valid.eq(Cat(taken, valid[:-1])), in_flight.eq(taken | valid[:-1].any() | (next_phase != 0))]
            if self.ii > 1:
                m.d.sync += self._phase.eq(next_phase)
        return enable

    def _operator(self, m: Module, key: tuple, number: int, jobs: list[tuple[Cell, list[Value]]], output: Signal,
                  enable: Value) -> None:
        """One operator with what it computes in each phase."""
        component, module_name = make(key)
        m.submodules[f"{key[0]}{self._ordinal(key)}_{number}"] = SharedModule(component, module_name)
        m.d.comb += [component.enable.eq(enable), output.eq(component.o)]
        for position, port in enumerate(PORTS[key[0]]):
            target = getattr(component, port)
            if len(jobs) == 1:
                m.d.comb += target.eq(jobs[0][1][position])
                continue
            with m.Switch(self._phase):
                for cell, operands in jobs:
                    with m.Case(self.schedule.start[cell.index] % self.ii):
                        m.d.comb += target.eq(operands[position])

    def _ordinal(self, key: tuple) -> int:
        """Number of a key among those of its kind."""
        return [k for k in self.schedule.operator_count if k[0] == key[0]].index(key)
