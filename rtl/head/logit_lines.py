"""Collects logits that come row by row alternating into bursts of one row."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.head.argmax import row_logit
from rtl.head.word_writer import word_run
from rtl.streams import shapes

LINE_WORDS = 64
"""Logits a row collects before they are written: 256 bytes."""


class LogitLines(wiring.Component):
    """A line of 64 logits a row; a full line, or what is there at the row's last index, is written as one run.

    Streams and signals
    -------------------
    logits (in) : logits of the rows that want them in memory, a row's indices rising from 0 without gaps.
    last_index  : vocabulary − 1.
    run, words (out) : to a WordWriter; row r's logit i goes to logits_address + r·logits_row_bytes + 4·i.
    busy        : a line is being written.

    Timing: a logit a cycle; a line holds the stream back for about 64 cycles.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "logits": In(stream.Signature(row_logit(params.rows))), "last_index": In(32),
            "pass_state": In(shapes.pass_state(params)),
            "run": Out(stream.Signature(word_run(params))), "words": Out(stream.Signature(32)), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        logit = self.logits.p
        offset_bits = bits_for(LINE_WORDS - 1)
        m.submodules.lines = lines = memory.Memory(shape=32, depth=self.params.rows * LINE_WORDS, init=[])
        write, read = lines.write_port(), lines.read_port(domain="sync")
        offset = logit.index[:offset_bits]
        row, count, index = Signal.like(logit.row), Signal(offset_bits + 1), Signal(offset_bits + 1)
        line = Signal(32 - offset_bits)
        address = Signal(self.params.address_bits)
        m.d.comb += [
            write.addr.eq(Cat(offset, logit.row)), write.data.eq(logit.bits),
            read.addr.eq(Cat(index[:offset_bits], row)),
            self.run.p.address.eq(address), self.run.p.words.eq(count), self.words.payload.eq(read.data),
        ]
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("COLLECT"))
            with m.State("COLLECT"):
                m.d.comb += [self.logits.ready.eq(1), write.en.eq(self.logits.valid)]
                m.d.sync += [row.eq(logit.row), count.eq(offset + 1), line.eq(logit.index[offset_bits:]), index.eq(0)]
                with m.If(self.logits.valid & ((offset == LINE_WORDS - 1) | (logit.index == self.last_index))):
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.sync += address.eq(self.pass_state.logits_address + row * self.pass_state.logits_row_bytes
                                       + (line << (offset_bits + 2)))
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.run.valid.eq(1)
                with m.If(self.run.ready):
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += read.en.eq(1)
                m.next = "WORD"
            with m.State("WORD"):
                # The next word is read while this one is taken.
                m.d.comb += [self.words.valid.eq(1), read.en.eq(self.words.ready),
                             read.addr.eq(Cat((index + 1)[:offset_bits], row))]
                with m.If(self.words.ready):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index + 1 == count):
                        m.next = "COLLECT"
        return m
