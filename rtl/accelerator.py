"""The whole accelerator: blocks, ports, and the arbitration between them."""

from amaranth.hdl import Cat, DomainRenamer, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect

from rtl.attention.attention import Attention
from rtl.contract import activity, register_map
from rtl.contract.activity import Activity
from rtl.contract.command_words import Unit
from rtl.contract.design_params import DesignParams
from rtl.contract.register_map import Counter, ErrorCause
from rtl.control.control import UNIT_DOMAIN, Control, add_unit_domain
from rtl.head.head import Head
from rtl.int8_dot.dot_engine import DotEngine
from rtl.memory_ports import axi4
from rtl.memory_ports.linear_reader import LinearReader
from rtl.memory_ports.read_port import ReadPort
from rtl.memory_ports.striped_reader import StripedReader
from rtl.memory_ports.striped_writer import StripedWriter
from rtl.memory_ports.write_port import WritePort
from rtl.ternary_matmul.engine import TernaryMatmul
from rtl.vector_unit.vector_unit import VectorUnit
from rtl.weight_buffer.weight_stream import WeightStream

KV_READ_BEATS = 512
"""Room for KV beats on their way: hides 400 cycles of memory latency at a beat a cycle."""
TABLE_READ_BEATS = 32
"""Room for table beats on their way: the gather takes several cycles a beat, and more takes twice the LUTs."""
LINEAR_READERS = ("loader", "program", "list", "kv_list")
CONTROL_PREFIX = "s_axi_control"


def memory_prefix(port: int) -> str:
    return f"m_axi_{port}"


class Accelerator(wiring.Component):
    """From registers and memory to tokens; see docs/architecture.md.

    Parameters
    ----------
    params  : the design.
    kernels : mapping name → compiled kernel (``.pipeline(lanes, ii, tag_bits)``), as
    ``hls_py.kernels.registry.KERNELS``.

    Ports: AXI4-Lite slave ``s_axi_control_*``, AXI4 masters ``m_axi_<p>_*`` of ``port_bytes``, ``interrupt`` (level).
    """

    def __init__(self, params: DesignParams, kernels):
        self.params, self.kernels = params, kernels
        members = axi4.flat_members(CONTROL_PREFIX, axi4.lite_signature(register_map.ADDRESS_BITS).flip())
        for port in range(params.ports):
            members |= axi4.flat_members(memory_prefix(port), axi4.read_signature(params))
            members |= axi4.flat_members(memory_prefix(port), axi4.write_signature(params))
        super().__init__({**members, "interrupt": Out(1)})

    def elaborate(self, platform):
        m = Module()
        p = self.params
        self.add = DomainRenamer(UNIT_DOMAIN)
        control = Control(p, errors=3)
        m.submodules.control = control
        add_unit_domain(m, control.unit_reset)
        m.d.comb += self.interrupt.eq(control.interrupt)
        connect_lite(m, self, control.bus)

        weights = self._unit(m, "weights", WeightStream(p))
        engine = self._unit(m, "engine", TernaryMatmul(p))
        vector = self._unit(m, "vector", VectorUnit(p, self.kernels))
        attention = self._unit(m, "attention", Attention(p, self.kernels))
        head = self._unit(m, "head", Head(p, self.kernels, p.operand_words))
        dots = self._unit(m, "dots", DotEngine(p, p.operand_words))
        connect(m, control.extents, weights.extents)

        self._units(m, control, engine, vector, attention, head)
        self._data(m, weights, engine, vector, attention, head)
        self._share_dots(m, dots, attention, head)
        moved = self._memory(m, control, weights, vector, attention, head)
        self._watch(m, control, weights, engine, vector, attention, head, moved)
        return m

    def _unit(self, m, name, component):
        """Add a block that a stop resets."""
        m.submodules[name] = self.add(component)
        return component

    def _units(self, m, control, engine, vector, attention, head):
        """Commands, pass state, row counts."""
        units = {
            Unit.ENGINE: (engine.command, engine.done, engine.busy),
            Unit.DRAIN: (vector.drain_command, vector.drain_done, vector.drain_busy),
            Unit.QUANTISE: (vector.quantise_command, vector.quantise_done, vector.quantise_busy),
            Unit.GATHER: (vector.gather_command, vector.gather_done, vector.gather_busy),
            Unit.ATTENTION: (attention.command, attention.done, attention.busy),
            Unit.KV_WRITER: (attention.kv_write_command, attention.kv_write_done, attention.kv_write_busy),
            Unit.HEAD: (head.command, head.done, head.busy),
        }
        for unit, (command, done, busy) in units.items():
            connect(m, control.commands[unit], command)
            m.d.comb += [control.done[unit].eq(done), control.unit_busy[unit].eq(busy)]
        connect(m, control.pass_state, *(block.pass_state for block in (vector, attention, head)))
        m.d.comb += [
            engine.rows.eq(control.pass_state.rows), engine.row_mask.eq((1 << control.pass_state.rows) - 1),
            control.slot_write.eq(head.slot_write), control.slot.eq(head.slot), control.slot_token.eq(head.slot_token),
        ]

    def _data(self, m, weights, engine, vector, attention, head):
        """Streams from block to block."""
        connect(m, weights.codes, engine.codes)
        connect(m, weights.gains, vector.gains)
        connect(m, weights.head_scales, head.head_scales)
        connect(m, weights.head_rows, head.head_rows)
        connect(m, vector.activation, engine.activation)
        connect(m, engine.tile, vector.tile)
        connect(m, vector.drain_read, engine.drain_read)
        connect(m, vector.heads, attention.heads)
        connect(m, vector.head_scales, attention.head_scales)
        connect(m, attention.words, vector.words)
        connect(m, vector.head_operands, head.head_operands)
        connect(m, vector.row_scales, head.row_scales)
        m.d.comb += [
            vector.activation_free.eq(engine.activation_free),
            engine.drain_release.valid.eq(vector.drain_release.valid),
            engine.drain_release.steps.eq(vector.drain_release.steps),
        ]

    def _share_dots(self, m, dots, attention, head):
        """The dot engine is the head's while it is busy, else attention's; operands have one writer at a time."""
        write = dots.operand_write
        m.d.comb += [
            write.valid.eq(attention.operand_write.valid | head.operand_write.valid),
            write.payload.eq(Mux(head.operand_write.valid, head.operand_write.payload,
                                 attention.operand_write.payload)),
            attention.operand_write.ready.eq(write.ready & ~head.operand_write.valid),
            head.operand_write.ready.eq(write.ready),
            dots.beats.valid.eq(Mux(head.busy, head.beats.valid, attention.beats.valid)),
            dots.beats.payload.eq(Mux(head.busy, head.beats.payload, attention.beats.payload)),
            head.beats.ready.eq(dots.beats.ready & head.busy), attention.beats.ready.eq(dots.beats.ready & ~head.busy),
            head.results.valid.eq(dots.results.valid & head.busy), head.results.payload.eq(dots.results.payload),
            attention.results.valid.eq(dots.results.valid & ~head.busy),
            attention.results.payload.eq(dots.results.payload),
            dots.results.ready.eq(Mux(head.busy, head.results.ready, attention.results.ready)),
        ]

    def _memory(self, m, control, weights, vector, attention, head):
        """Ports and their clients; returns a signal that is set when a word moves."""
        p = self.params
        kv = self._unit(m, "kv_reader", StripedReader(p, KV_READ_BEATS))
        table = self._unit(m, "table_reader", StripedReader(p, TABLE_READ_BEATS))
        kv_writer = self._unit(m, "kv_writer", StripedWriter(p))
        linear = {name: self._unit(m, f"{name}_reader", LinearReader(p)) for name in LINEAR_READERS}
        connect(m, attention.kv_request, kv.request)
        connect(m, kv.data, attention.kv_data)
        connect(m, vector.table_request, table.request)
        connect(m, table.data, vector.table_data)
        connect(m, attention.kv_write_request, kv_writer.request)
        connect(m, attention.kv_write_data, kv_writer.data)
        sources = {"loader": (control.loader_request, control.loader_data),
                   "program": (control.program_request, control.program_data),
                   "list": (attention.list_request, attention.list_data),
                   "kv_list": (attention.kv_list_request, attention.kv_list_data)}
        for name, (request, words) in sources.items():
            connect(m, request, linear[name].request)
            connect(m, linear[name].data, words)
        m.d.comb += [kv.base.eq(control.kv_base), kv_writer.base.eq(control.kv_base),
                     table.base.eq(control.table_base), attention.kv_write_idle.eq(kv_writer.idle)]

        moved, settled, quiet = [], [], []
        faults: dict[ErrorCause, list] = {
            cause: [] for cause in (ErrorCause.READ_ERROR, ErrorCause.WRITE_ERROR, ErrorCause.READ_OVERFLOW)}
        for port in range(p.ports):
            # Priority: KV, tables, linear memory (port 0), and the weights' prefetch last.
            readers = [(kv.port_request[port], kv.port_data[port]), (table.port_request[port], table.port_data[port])]
            writers = [(kv_writer.port_request[port], kv_writer.port_data[port])]
            if port == 0:
                readers += [(reader.port_request, reader.port_data) for reader in linear.values()]
                writers.append((head.port_request, head.port_data))
            readers.append((weights.port_request[port], weights.port_data[port]))
            read = self._unit(m, f"read_port_{port}", ReadPort(p, len(readers)))
            write = self._unit(m, f"write_port_{port}", WritePort(p, len(writers)))
            for client, (request, data) in enumerate(readers):
                connect(m, request, read.request[client])
                connect(m, read.data[client], data)
            for client, (request, data) in enumerate(writers):
                connect(m, request, write.request[client])
                connect(m, data, write.data[client])
            axi4.connect_flat(m, self, memory_prefix(port), read.bus)
            axi4.connect_flat(m, self, memory_prefix(port), write.bus)
            m.d.comb += [read.stop.eq(control.stop), write.stop.eq(control.stop),
                         kv_writer.port_idle[port].eq(write.idle[0])]
            written = (write.bus.wvalid & write.bus.wready) | write.bus.bvalid
            moved += [read.bus.rvalid, written]
            settled += [read.outstanding == 0, write.outstanding == 0]
            quiet.append(write.idle.all())
            m.d.comb += [control.owes[2 * port].eq((read.outstanding != 0) & ~read.bus.rvalid),
                         control.owes[2 * port + 1].eq((write.outstanding != 0) & ~written)]
            for error, cause in ((read.error, ErrorCause.READ_ERROR), (write.error, ErrorCause.WRITE_ERROR),
                                 (read.overflow, ErrorCause.READ_OVERFLOW)):
                faults[cause].append((error, port))
        # One entry for all of them, the first of this order.
        fault = Signal(control.errors[2].shape())
        with m.If(0):
            pass
        for cause, ports in faults.items():
            for error, port in ports:
                with m.Elif(error):
                    m.d.comb += [fault.valid.eq(1), fault.cause.eq(cause.value), fault.info.eq(port)]
        m.d.comb += control.errors[2].eq(fault)
        m.d.comb += [control.settled.eq(Cat(*settled).all()),
                     control.memory_quiet.eq(Cat(*quiet).all() & kv_writer.idle)]
        self.event_beats = {
            Counter.KV_READ_BEATS: kv.data.valid & kv.data.ready,
            Counter.TABLE_READ_BEATS: table.data.valid & table.data.ready,
            Counter.WRITE_BEATS: getattr(self, f"{memory_prefix(0)}_wvalid") & getattr(self,
                f"{memory_prefix(0)}_wready"),
        }
        any_moved = Signal()
        m.d.comb += any_moved.eq(Cat(*moved).any())
        return any_moved

    def _watch(self, m, control, weights, engine, vector, attention, head, moved):
        """Errors of the stream, counters, and what counts as progress."""
        m.d.comb += [
            control.errors[0].valid.eq(weights.error), control.errors[0].cause.eq(weights.error_cause),
            control.errors[0].info.eq(weights.error_info),
            control.errors[1].valid.eq(engine.framing_error),
            control.errors[1].cause.eq(ErrorCause.RECORD_FRAMING.value),
        ]
        events = {
            Counter.ENGINE_STEPS: engine.events.step,
            Counter.ENGINE_WAIT_STREAM: engine.events.wait_stream,
            Counter.ENGINE_WAIT_ACTIVATION: engine.events.wait_activation,
            Counter.ENGINE_WAIT_TABLE: engine.events.wait_table,
            Counter.ENGINE_WAIT_DRAIN: engine.events.wait_drain,
            Counter.ENGINE_NO_COMMAND: engine.events.no_command,
            Counter.DRAIN_BUSY: vector.drain_busy,
            Counter.QUANTISE_BUSY: vector.quantise_busy,
            Counter.GATHER_BUSY: vector.gather_busy,
            Counter.ATTENTION_BUSY: attention.busy,
            Counter.ATTENTION_WAIT_MEMORY: attention.events.waits_for_memory,
            Counter.KV_WRITER_BUSY: attention.kv_write_busy,
            Counter.HEAD_BUSY: head.busy,
            Counter.RING_FULL: weights.events.ring_full,
            Counter.STREAM_BEATS: weights.events.beat,
            **self.event_beats,
        }
        for counter, event in events.items():
            m.d.comb += control.events[counter.value].eq(event)
        self._activity(m, control, weights, vector, attention, head)
        streams = [engine.activation, attention.heads, attention.words, head.results, attention.results, head.port_data]
        m.d.comb += control.progress.eq(
            moved | engine.events.step | weights.events.beat | Cat(*[s.valid & s.ready for s in streams]).any())

    def _activity(self, m, control, weights, vector, attention, head):
        """A word for simulators to look at (contract's Activity); nothing reads it."""
        def moves(words):
            return words.valid & words.ready

        word = Signal(activity.ACTIVITY_BITS, name=activity.SIGNAL)
        m.d.comb += [
            word[:len(Counter)].eq(control.events), word[Counter.BUSY_CYCLES].eq(control.running),
            word[Counter.SEQUENCER_WAIT].eq(control.sequencer_waits),
            *(word[Activity.UNIT_WAITS + unit].eq(control.waits[unit]) for unit in Unit),
            word[Activity.ATTENTION_BEAT].eq(moves(attention.beats)),
            word[Activity.ATTENTION_WAIT_ARRAY].eq(attention.beats.valid & ~attention.beats.ready),
            word[Activity.ATTENTION_WAIT_QUERIES].eq(attention.events.waits_for_queries),
            word[Activity.ATTENTION_WAIT_WEIGHTS].eq(attention.events.waits_for_weights),
            word[Activity.ATTENTION_WAIT_PATH].eq(attention.events.waits_for_path),
            word[Activity.ATTENTION_WORD].eq(moves(attention.words)),
            word[Activity.DRAIN_WAIT_TILE].eq(vector.events.drain_waits_for_tile),
            word[Activity.QUANTISE_FOLD].eq(vector.events.quantise_folds),
            word[Activity.QUANTISE_WAIT_ROOM].eq(vector.events.quantise_waits_for_room),
            word[Activity.HEAD_BEAT].eq(moves(head.head_rows)),
            word[Activity.HEAD_WAIT_STREAM].eq(head.busy & head.head_rows.ready & ~head.head_rows.valid),
            word[Activity.KV_WRITE_BEAT].eq(moves(attention.kv_write_data)),
            word[Activity.RINGS_EMPTY].eq(weights.events.empty),
            *(word[Activity.RING_FULL_OF_PORT + p].eq(weights.rings_full[p]) for p in range(self.params.ports)),
        ]


def connect_lite(m, top, bus):
    """The flat AXI4-Lite slave of ``top`` to the ``bus`` of control."""
    for name, member in axi4.lite_signature(register_map.ADDRESS_BITS).members.items():
        inner, outer = getattr(bus, name), getattr(top, f"{CONTROL_PREFIX}_{name}")
        m.d.comb += inner.eq(outer) if member.flow is Out else outer.eq(inner)
