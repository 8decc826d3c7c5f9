"""A unit's queue of commands, and the semaphores that order the units among each other."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from rtl.contract.command_words import COMMON, LAYOUTS, QUEUE_COMMANDS, SEMAPHORES, UNIT_OF, Unit
from rtl.streams.shapes import COMMAND_BITS, command_layout

IN_FLIGHT = 4
SEMAPHORE_BITS = 4


def command_bits(unit: Unit) -> list[int]:
    """Bits of a command word that some field of the unit's commands takes."""
    fields = {field for opcode, owner in UNIT_OF.items() if owner == unit for field in LAYOUTS[opcode].fields.values()}
    return sorted({field.bit + n for field in fields for n in range(field.width)})


class UnitQueue(wiring.Component):
    """Holds a unit's commands; the oldest goes to the unit once its semaphores are up.

    Parameters
    ----------
    unit : whose commands; only the bits that their fields take are kept, and the others are zero at ``unit``.

    Streams
    -------
    command (in)  : from the sequencer, in program order.
    unit (out)    : to the unit.

    Ports
    -----
    wants : the oldest command's wait mask is ``wait`` and it could start; ``grant`` lets it start in this cycle.
    done  : one pulse from the unit a finished command, in order; ``signal`` is then that command's signal mask.
    idle  : nothing queued, nothing in flight.

    Timing: two cycles from ``command`` to ``unit`` when the queue is empty.
    """

    def __init__(self, unit: Unit):
        self.unit_number = unit
        super().__init__({
            "command": In(stream.Signature(COMMAND_BITS)),
            "unit": Out(stream.Signature(COMMAND_BITS)),
            "wants": Out(1), "wait": Out(SEMAPHORES), "grant": In(1), "started": Out(1),
            "done": In(1), "signal": Out(SEMAPHORES), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        kept = command_bits(self.unit_number)
        m.submodules.queue = queue = SyncFIFOBuffered(width=len(kept), depth=QUEUE_COMMANDS)
        m.submodules.in_flight = in_flight = SyncFIFOBuffered(width=SEMAPHORES, depth=IN_FLIGHT)
        m.d.comb += [queue.w_data.eq(Cat(self.command.payload[bit] for bit in kept)), queue.w_en.eq(self.command.valid),
                     self.command.ready.eq(queue.w_rdy)]
        command = Signal(COMMAND_BITS)
        head = command_layout(COMMON)(command)
        m.d.comb += [command[bit].eq(queue.r_data[n]) for n, bit in enumerate(kept)]
        # The command waits for its semaphores in the queue, then for the unit in a register.
        offered = Signal()
        load = Signal()
        m.d.comb += [
            self.unit.valid.eq(offered),
            self.wait.eq(head.wait),
            self.wants.eq(queue.r_rdy & in_flight.w_rdy & (~offered | self.unit.ready)),
            load.eq(self.wants & self.grant), queue.r_en.eq(load), self.started.eq(load),
            in_flight.w_en.eq(load), in_flight.w_data.eq(head.signal),
            in_flight.r_en.eq(self.done), self.signal.eq(Mux(self.done, in_flight.r_data, 0)),
            self.idle.eq(~queue.r_rdy & ~in_flight.r_rdy & ~offered & (queue.level == 0) & (in_flight.level == 0)),
        ]
        with m.If(self.unit.ready):
            m.d.sync += offered.eq(0)
        with m.If(load):
            m.d.sync += [offered.eq(1), self.unit.payload.eq(command)]
        return m


class Semaphores(wiring.Component):
    """Counting semaphores of the units' queues.

    ``count[s]`` rises by one for every unit whose finished command signals s and falls by one when a command that waits
    for s starts. One command starts a cycle, the lowest unit first, so that two can't take the same count.

    Ports (arrays over units)
    -----
    wants, wait : from each queue; grant : to each queue; signal : mask of a command finished in this cycle.
    """

    def __init__(self, units: int):
        self.units = units
        super().__init__({
            "wants": In(units), "wait": In(data.ArrayLayout(SEMAPHORES, units)), "grant": Out(units),
            "signal": In(data.ArrayLayout(SEMAPHORES, units)),
        })

    def elaborate(self, platform):
        m = Module()
        counts = [Signal(SEMAPHORE_BITS, name=f"count_{s}") for s in range(SEMAPHORES)]
        up = Signal(SEMAPHORES)
        for s, count in enumerate(counts):
            m.d.comb += up[s].eq(count != 0)
        taken = Signal(SEMAPHORES)
        with m.If(0):
            pass
        for unit in range(self.units):
            with m.Elif(self.wants[unit] & ((self.wait[unit] & ~up) == 0)):
                m.d.comb += [self.grant[unit].eq(1), taken.eq(self.wait[unit])]
        for s, count in enumerate(counts):
            raised = sum(self.signal[unit][s] for unit in range(self.units))
            m.d.sync += count.eq(count + raised - taken[s])
        return m
