"""The control plane: registers, pass loader, sequencer, queues, supervisor, counters."""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Const, DomainRenamer, Module, ResetSignal, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract import register_map
from rtl.contract.command_words import Unit
from rtl.contract.design_params import DesignParams
from rtl.contract.register_map import Counter, ErrorCause
from rtl.control.counters import Counters
from rtl.control.pass_loader import PassLoader
from rtl.control.register_bank import RegisterBank
from rtl.control.sequencer import Sequencer
from rtl.control.supervisor import ERROR, Supervisor
from rtl.control.unit_queue import Semaphores, UnitQueue
from rtl.memory_ports.axi4 import lite_signature
from rtl.streams import shapes

UNIT_DOMAIN = "unit"
"""Clock domain of everything that a stop resets; see ``add_unit_domain``."""


def add_unit_domain(m: Module, unit_reset) -> None:
    """Give ``m`` the domain UNIT_DOMAIN: the clock is ``sync``'s, the reset ``unit_reset`` or ``sync``'s, a cycle late.

    A register stands between because most of the design hangs on this reset, and because simulators compute whatever
    an input pin reaches twice a cycle.
    """
    m.domains += ClockDomain(UNIT_DOMAIN, local=True)
    was_reset = Signal(init=1)
    m.d.sync += was_reset.eq(0)
    m.d.comb += [ClockSignal(UNIT_DOMAIN).eq(ClockSignal()), ResetSignal(UNIT_DOMAIN).eq(was_reset | unit_reset)]


class Control(wiring.Component):
    """Everything between the register bus and the units.

    Ports
    -----
    bus, interrupt : AXI4-Lite slave and interrupt line.
    commands[u], done[u], unit_busy[u] : the units (contract's Unit numbers).
    loader_request/loader_data, program_request/program_data : two LinearReaders of port 0.
    extents : to the weight stream.  pass_state, kv_base, table_base : to the units.
    slot_write, slot, slot_token : argmax of a slot, from the head.
    errors  : from the units (ERROR).  events : counter strobes.  progress, owes : for the watchdog (Supervisor's).
    stop, settled, unit_reset : memory is told to stop, says that nothing is owed; then the units are reset.
    memory_quiet : every write is acknowledged.  waits, sequencer_waits : for simulators:
                   units whose next command waits for a semaphore; the sequencer waits for a queue.

    ``unit_reset`` must reset everything that runs a pass: whoever instantiates this gives the module the domain
    UNIT_DOMAIN (``add_unit_domain``), which loader, sequencer and queues in here are part of.
    """

    def __init__(self, params: DesignParams, errors: int):
        self.params, self.error_count = params, errors
        linear = stream.Signature(shapes.linear_request(params))
        bases = data.ArrayLayout(params.address_bits, params.ports)
        super().__init__({
            "bus": In(lite_signature(register_map.ADDRESS_BITS)), "interrupt": Out(1),
            "commands": Out(stream.Signature(shapes.COMMAND_BITS)).array(len(Unit)),
            "done": In(len(Unit)), "unit_busy": In(len(Unit)),
            "loader_request": Out(linear), "loader_data": In(stream.Signature(32)),
            "program_request": Out(linear), "program_data": In(stream.Signature(32)),
            "extents": Out(stream.Signature(shapes.extent(params))),
            "pass_state": Out(shapes.pass_state(params)), "kv_base": Out(bases), "table_base": Out(bases),
            "slot_write": In(1), "slot": In(16), "slot_token": In(32),
            "errors": In(data.ArrayLayout(ERROR, errors)), "events": In(len(Counter)), "progress": In(1),
            "owes": In(data.ArrayLayout(1, 2 * params.ports)),
            "stop": Out(1), "settled": In(1), "unit_reset": Out(1), "memory_quiet": In(1), "running": Out(1),
            "waits": Out(len(Unit)), "sequencer_waits": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterBank(self.params)
        m.submodules.supervisor = supervisor = Supervisor(self.params, self.error_count + 3)
        m.submodules.counters = counters = Counters()

        in_unit = DomainRenamer(UNIT_DOMAIN)
        loader, sequencer = PassLoader(self.params), Sequencer(self.params)
        semaphores = Semaphores(len(Unit))
        queues = [UnitQueue(unit) for unit in Unit]
        m.submodules.loader, m.submodules.sequencer = in_unit(loader), in_unit(sequencer)
        m.submodules.semaphores = in_unit(semaphores)
        for unit, queue in zip(Unit, queues):
            m.submodules[f"queue_{unit.name.lower()}"] = in_unit(queue)
            wiring.connect(m, sequencer.commands[unit], queue.command)
            m.d.comb += [
                self.commands[unit].valid.eq(queue.unit.valid), self.commands[unit].payload.eq(queue.unit.payload),
                queue.unit.ready.eq(self.commands[unit].ready), queue.done.eq(self.done[unit]),
                semaphores.wants[unit].eq(queue.wants), semaphores.wait[unit].eq(queue.wait),
                queue.grant.eq(semaphores.grant[unit]), semaphores.signal[unit].eq(queue.signal),
                self.waits[unit].eq(queue.wants & ~semaphores.grant[unit]),
            ]

        # A pass: supervisor → loader → sequencer → supervisor.
        quiet = Cat(*[q.idle for q in queues]).all() & ~self.unit_busy.any() & self.memory_quiet & ~loader.busy
        m.d.comb += [
            supervisor.push.eq(registers.pass_push), supervisor.push_address.eq(registers.pass_address),
            supervisor.abort.eq(registers.abort), supervisor.acknowledge.eq(registers.acknowledge),
            supervisor.watchdog_limit.eq(registers.watchdog_limit),
            loader.start.eq(supervisor.start), loader.address.eq(supervisor.address),
            supervisor.stale.eq(loader.stale),
            sequencer.start.eq(loader.loaded), sequencer.address.eq(loader.program_address),
            sequencer.count.eq(loader.commands), sequencer.quiet.eq(quiet), supervisor.pass_done.eq(sequencer.done),
            loader.slot_write.eq(self.slot_write), loader.slot.eq(self.slot), loader.slot_token.eq(self.slot_token),
        ]
        for name, part in (("loader", loader), ("program", sequencer)):
            wiring.connect(m, part.linear_request, wiring.flipped(getattr(self, f"{name}_request")))
            wiring.connect(m, wiring.flipped(getattr(self, f"{name}_data")), part.linear_data)
        wiring.connect(m, loader.extents, wiring.flipped(self.extents))
        m.d.comb += [
            self.kv_base.eq(registers.kv_base), self.table_base.eq(registers.table_base),
        ]
        wiring.connect(m, loader.pass_state, wiring.flipped(self.pass_state))

        # Causes: this block's own first, then the units'.
        own = [
            (registers.bad_write, ErrorCause.REGISTER_WRITE_WHILE_BUSY.value, registers.bad_address),
            (loader.error, loader.error_cause, loader.error_info),
            (sequencer.bad_command, ErrorCause.BAD_COMMAND.value, sequencer.number),
        ]
        for n, (valid, cause, info) in enumerate(own):
            m.d.comb += [supervisor.errors[n].valid.eq(valid), supervisor.errors[n].cause.eq(cause),
                         supervisor.errors[n].info.eq(info)]
        running = supervisor.busy & ~supervisor.stop
        for n in range(self.error_count):
            m.d.comb += [supervisor.errors[len(own) + n].eq(self.errors[n]),
                         supervisor.errors[len(own) + n].valid.eq(self.errors[n].valid & running)]
        started = Cat(*[q.started for q in queues]).any()
        m.d.comb += [
            supervisor.progress.eq(self.progress | started | self.done.any()), supervisor.owes.eq(self.owes),
            supervisor.watch_info.eq(Cat(self.unit_busy, Const(0, 14 - len(Unit)), loader.busy, sequencer.busy)),
            supervisor.settled.eq(self.settled), self.stop.eq(supervisor.stop),
            self.unit_reset.eq(supervisor.unit_reset),
            self.running.eq(running),
            registers.busy.eq(supervisor.busy),
            registers.status.eq(Cat(supervisor.busy | supervisor.pending, supervisor.error, supervisor.queue_full,
                                    supervisor.draining)),
            registers.error_cause.eq(supervisor.cause), registers.error_info.eq(supervisor.info),
            registers.passes_done.eq(supervisor.done_count), registers.event_done.eq(supervisor.event_done),
            registers.event_error.eq(supervisor.event_error), self.interrupt.eq(registers.interrupt),
            counters.running.eq(running), counters.clear.eq(registers.counters_clear), counters.events.eq(self.events),
            counters.asked.eq(registers.counter_asked), counters.number.eq(registers.counter),
            registers.counter_value.eq(counters.value),
        ]
        m.d.comb += counters.events[Counter.BUSY_CYCLES].eq(1)
        m.d.comb += [counters.events[Counter.SEQUENCER_WAIT].eq(sequencer.waiting),
                     self.sequencer_waits.eq(sequencer.waiting)]
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        return m
