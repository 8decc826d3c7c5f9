"""Starts passes, watches them, and brings the machine to a defined state when one stops."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.register_map import PASS_QUEUE_DEPTH, ErrorCause
from rtl.control.watchdog import Watchdog

ERROR = data.StructLayout({"valid": 1, "cause": 8, "info": 32})
RESET_CYCLES = 4


class Supervisor(wiring.Component):
    """The pass queue, the watchdog, and the stop sequence.

    A pass runs from ``start`` to ``pass_done``. An error (lowest source first), ``abort`` or the watchdog latches a
    cause, raises
    ``stop`` towards memory, waits until memory owes nothing (``settled``), and resets the units. STATUS shows the error
    at once; the next queued pass starts after ``acknowledge`` and the reset. ABORT drops the queued passes.

    Ports
    -----
    push, push_address : queue a pass; full: QUEUE_OVERFLOW.
    start, address     : to the pass loader.  loaded, stale, pass_done : from loader and sequencer.
    errors             : array of ERROR from the units, any may pulse while a pass runs.
    progress, owes     : for the Watchdog: something moved in this cycle; port p's reads (2p) or writes (2p + 1) owe an
                         answer and moved nothing.
    watch_info         : low half of what ERROR_INFO says when the watchdog bites; silent ports are the other half.
    stop, settled, unit_reset : see above.
    busy               : a pass runs or is being stopped.  pending : a pass is queued.
    error, queue_full, draining, cause, info, done_count : for STATUS and its neighbours.
    """

    def __init__(self, params: DesignParams, errors: int):
        self.params, self.error_count = params, errors
        super().__init__({
            "push": In(1), "push_address": In(params.address_bits),
            "abort": In(1), "acknowledge": In(1), "watchdog_limit": In(32),
            "start": Out(1), "address": Out(params.address_bits), "stale": In(1), "pass_done": In(1),
            "errors": In(data.ArrayLayout(ERROR, errors)), "progress": In(1),
            "owes": In(data.ArrayLayout(1, 2 * params.ports)), "watch_info": In(16),
            "stop": Out(1), "settled": In(1), "unit_reset": Out(1),
            "busy": Out(1), "pending": Out(1), "error": Out(1), "queue_full": Out(1), "draining": Out(1),
            "cause": Out(8), "info": Out(32), "done_count": Out(32), "event_done": Out(1), "event_error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self.kept_address = Signal(self.params.address_bits)
        m.submodules.queue = queue = SyncFIFOBuffered(width=self.params.address_bits, depth=PASS_QUEUE_DEPTH)
        flush = Signal()
        m.d.comb += [queue.w_data.eq(self.push_address), queue.w_en.eq(self.push & queue.w_rdy & ~flush),
                     self.queue_full.eq(~queue.w_rdy), self.pending.eq(self.push | (queue.level != 0))]

        running = Signal()
        m.submodules.watchdog = watchdog = Watchdog(2 * self.params.ports)
        silent = Cat(*[watchdog.silent[2 * port] | watchdog.silent[2 * port + 1] for port in range(self.params.ports)])
        m.d.comb += [watchdog.running.eq(running), watchdog.progress.eq(self.progress), watchdog.owes.eq(self.owes),
                     watchdog.limit.eq(self.watchdog_limit)]

        # The first cause stays until it is acknowledged.
        caught = Signal(ERROR)
        with m.If(self.abort & (running | queue.r_rdy)):
            m.d.comb += [caught.valid.eq(1), caught.cause.eq(ErrorCause.ABORTED.value)]
        for source in range(self.error_count):
            with m.Elif(self.errors[source].valid):
                m.d.comb += caught.eq(self.errors[source])
        with m.Elif(self.push & ~queue.w_rdy):
            m.d.comb += [caught.valid.eq(1), caught.cause.eq(ErrorCause.QUEUE_OVERFLOW.value)]
        with m.Elif(watchdog.bites):
            m.d.comb += [caught.valid.eq(1), caught.cause.eq(ErrorCause.WATCHDOG.value),
                         caught.info.eq(Cat(self.watch_info, silent))]
        m.d.comb += self.event_error.eq(caught.valid & ~self.error)
        with m.If(caught.valid & ~self.error):
            m.d.sync += [self.error.eq(1), self.cause.eq(caught.cause), self.info.eq(caught.info)]
        with m.Elif(self.acknowledge):
            m.d.sync += [self.error.eq(0), self.cause.eq(ErrorCause.NONE.value), self.info.eq(0)]
        with m.If(self.abort):
            m.d.sync += flush.eq(1)
        with m.Elif(~queue.r_rdy):
            m.d.sync += flush.eq(0)

        count = Signal(range(RESET_CYCLES + 1))
        again = Signal()
        m.d.comb += queue.r_en.eq(flush)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(caught.valid):
                    m.next = "STOP"
                with m.Elif(queue.r_rdy & ~self.error & ~flush):
                    m.d.comb += [queue.r_en.eq(1), self.start.eq(1), self.address.eq(queue.r_data)]
                    m.d.sync += self.kept_address.eq(queue.r_data)
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [running.eq(1), self.busy.eq(1), self.address.eq(self.kept_address)]
                with m.If(caught.valid):
                    m.next = "STOP"
                with m.Elif(self.stale):
                    m.d.sync += again.eq(1)
                    m.next = "STOP"
                with m.Elif(self.pass_done):
                    m.d.comb += self.event_done.eq(1)
                    m.d.sync += self.done_count.eq(self.done_count + 1)
                    m.next = "IDLE"
            with m.State("STOP"):
                m.d.comb += [self.stop.eq(1), self.busy.eq(1), self.draining.eq(1)]
                with m.If(self.settled):
                    m.d.sync += count.eq(RESET_CYCLES)
                    m.next = "RESET"
            with m.State("RESET"):
                m.d.comb += [self.stop.eq(1), self.busy.eq(1), self.unit_reset.eq(1)]
                m.d.sync += count.eq(count - 1)
                with m.If(count == 0):
                    m.d.sync += again.eq(0)
                    with m.If(again & ~self.error):
                        m.next = "RESTART"
                    with m.Else():
                        m.next = "IDLE"
            with m.State("RESTART"):
                m.d.comb += [self.busy.eq(1), self.start.eq(1), self.address.eq(self.kept_address)]
                m.next = "RUN"
        return m
