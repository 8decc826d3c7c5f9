"""Fetches the command program of a pass and hands the commands to the units' queues."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract import command_words as words
from rtl.contract.command_words import COMMAND_WORDS, UNIT_OF, Opcode, Unit
from rtl.contract.design_params import DesignParams
from rtl.streams import shapes


class Sequencer(wiring.Component):
    """Issues commands in program order; ``END`` waits for ``quiet`` and finishes the pass.

    Checks every command: a known opcode, and sizes within the design's limits, else ``bad_command`` pulses with the
    command's number and the sequencer stops until reset. A program that ends without END is a bad command too.

    Streams
    -------
    linear_request (out), linear_data (in) : a LinearReader of port 0; it prefetches the program.
    commands[u] (out) : to the queue of unit u.

    Ports
    -----
    start, address, count : a pulse begins a program of ``count`` commands.
    quiet : every unit is idle and every write is acknowledged.
    done  : pulse at END.  waiting : a command is there but its queue is full.

    Timing: a command every 9 cycles at most.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "start": In(1), "address": In(params.address_bits), "count": In(24),
            "linear_request": Out(stream.Signature(shapes.linear_request(params))),
            "linear_data": In(stream.Signature(32)),
            "commands": Out(stream.Signature(shapes.COMMAND_BITS)).array(len(Unit)),
            "quiet": In(1), "done": Out(1), "bad_command": Out(1), "number": Out(24), "waiting": Out(1), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        command = Signal(shapes.COMMAND_BITS)
        index, left = Signal(range(COMMAND_WORDS)), Signal(24)
        opcode = command[:8]
        for unit_stream in self.commands:
            m.d.comb += unit_stream.payload.eq(command)
        ready = Signal()
        with m.Switch(opcode):
            for code, unit in UNIT_OF.items():
                with m.Case(code.value):
                    m.d.comb += ready.eq(self.commands[unit].ready)

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [left.eq(self.count), self.number.eq(0), index.eq(0)]
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += [self.linear_request.valid.eq(1), self.linear_request.p.address.eq(self.address),
                             self.linear_request.p.words.eq(self.count * COMMAND_WORDS)]
                with m.If(self.linear_request.ready):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.linear_data.ready.eq(left != 0)
                with m.If(left == 0):
                    m.next = "BAD"
                with m.Elif(self.linear_data.valid):
                    m.d.sync += [command.word_select(index, 32).eq(self.linear_data.payload), index.eq(index + 1)]
                    with m.If(index == COMMAND_WORDS - 1):
                        m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "BAD"
                with m.If(opcode == Opcode.END.value):
                    m.next = "END"
                with m.Elif(self._valid(command)):
                    m.next = "ISSUE"
            with m.State("ISSUE"):
                with m.Switch(opcode):
                    for code, unit in UNIT_OF.items():
                        with m.Case(code.value):
                            m.d.comb += self.commands[unit].valid.eq(1)
                m.d.comb += self.waiting.eq(~ready)
                with m.If(ready):
                    m.d.sync += [left.eq(left - 1), self.number.eq(self.number + 1)]
                    m.next = "FETCH"
            with m.State("END"):
                # Words behind END (there should be none) are dropped, so that the reader is empty for the next pass.
                rest = Signal(24)
                m.d.comb += self.linear_data.ready.eq(1)
                with m.If(self.quiet & (left == 1)):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
                with m.If(self.linear_data.valid):
                    m.d.sync += rest.eq(Mux(rest == COMMAND_WORDS - 1, 0, rest + 1))
                    with m.If(rest == COMMAND_WORDS - 1):
                        m.d.sync += left.eq(left - 1)
            with m.State("BAD"):
                m.d.comb += self.bad_command.eq(1)
                m.next = "STOPPED"
            with m.State("STOPPED"):
                pass
        return m

    def _valid(self, command):
        """The opcode is known and its sizes fit the design."""
        p = self.params

        def fields(layout):
            return shapes.command_layout(layout)(command)

        tile, drain, quantise = fields(words.TILE), fields(words.DRAIN), fields(words.QUANTISE)
        gather, attend = fields(words.GATHER), fields(words.ATTEND)
        kv, head = fields(words.KV_WRITE), fields(words.HEAD)
        opcode = command[:8]

        def within(value, limit):
            return (value != 0) & (value <= limit)

        checks = {
            Opcode.TILE: within(tile.steps, p.tile_steps) & within(tile.slices, p.max_slices),
            Opcode.DRAIN: within(drain.steps, p.tile_steps) & (drain.outputs != 0) & (drain.mode <= 4),
            Opcode.QUANTISE: within(quantise.words, p.gain_words) & (quantise.slices != 0),
            Opcode.GATHER: within(gather.words, p.residual_words) & (gather.pairs <= p.max_head_dim // 2),
            Opcode.ATTEND: (within(attend.head_dim, p.max_head_dim) & within(attend.queries_per_kv, p.max_row_vectors)
                            & (attend.kv_heads != 0)),
            Opcode.KV_WRITE: within(kv.head_dim, p.max_head_dim) & (kv.kv_heads != 0),
            Opcode.HEAD: (head.vocabulary != 0) & within(head.segments, p.operand_words) & within(head.top_k, p.top_k),
        }
        valid = 0
        for code, check in checks.items():
            valid = valid | ((opcode == code.value) & check)
        return valid
