"""The output head: logits of the pass's rows, their argmax and top-k, and what goes to memory."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.contract.command_words import HEAD
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import ACTIVATION_MAX, bits_for, round_up, signed_range
from rtl.contract.pass_descriptor import RESULT_HEADER, RowFlag, result_bytes
from rtl.contract.stream_records import HEAD_CHUNK_ROWS
from rtl.head.argmax import Argmax
from rtl.head.logit_lines import LogitLines
from rtl.head.top_k import TopK
from rtl.head.word_writer import WordWriter
from rtl.streams import shapes

WANTS = data.StructLayout({"argmax": 1, "top_k": 1, "logits": 1})
"""What a row asks the head for."""


class Head(wiring.Component):
    """``logit[r][v] = float32(Σ_k x[r][k]·w[v][k])·row_scale[r]·vocabulary_scale[v]`` for v = 0 … vocabulary − 1.

    Rows whose flags ask for nothing are skipped. ARGMAX keeps the winner for the row's slot (``slot_write``) and writes
    a result; TOP_K adds the k best to it; LOGITS writes every logit to memory.

    Parameters
    ----------
    params        : ``rows``, ``row_vectors``, ``segments``, ``top_k``, port sizes.
    kernels       : mapping with the compiled kernel "logit".
    operand_words : depth of the dot engine's operand memory; row r's segment j lies at (r div A)·stride + j.

    Streams
    -------
    head_operands, row_scales (in) : int8 segments and float32 scale of every row (QUANTISE target HEAD).
    head_rows, head_scales (in)    : records of the weight stream (see rtl.contract.stream_records).
    operand_write, beats (out), results (in) : the dot engine, which is this unit's alone while it is busy.
    port_request, port_data (out)  : a WritePort client of port 0.

    Timing: a beat takes ceil(R/A) cycles; logits leave one a cycle.
    """

    def __init__(self, params: DesignParams, kernels, operand_words: int):
        self.params, self.kernels = params, kernels
        self.turns = -(-params.rows // params.row_vectors)
        self.turn_stride = operand_words // self.turns
        super().__init__({
            "command": In(stream.Signature(shapes.COMMAND_BITS)), "done": Out(1), "busy": Out(1),
            "pass_state": In(shapes.pass_state(params)),
            "head_operands": In(stream.Signature(shapes.head_operand(params))),
            "row_scales": In(stream.Signature(shapes.row_scale(params))),
            "head_rows": In(stream.Signature(shapes.beat(params))),
            "head_scales": In(stream.Signature(shapes.beat(params))),
            "operand_write": Out(stream.Signature(shapes.operand_write(params))),
            "beats": Out(stream.Signature(shapes.dot_beat(params))),
            "results": In(stream.Signature(shapes.dot_result(params))),
            "port_request": Out(stream.Signature(shapes.port_request(params))),
            "port_data": Out(stream.Signature(shapes.port_write_word(params))),
            "slot_write": Out(1), "slot": Out(16), "slot_token": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        self._operands(m)
        command = Signal(shapes.COMMAND_BITS)
        fields = shapes.command_layout(HEAD)(command)
        running = Signal()
        self._beats(m, running, fields.segments)

        m.submodules.argmax = argmax = Argmax(self.params.rows)
        m.submodules.top_k = top_k = TopK(self.params.rows, self.params.top_k)
        m.submodules.lines = lines = LogitLines(self.params)
        m.submodules.writer = writer = WordWriter(self.params)
        wiring.connect(m, writer.port_request, wiring.flipped(self.port_request))
        wiring.connect(m, writer.port_data, wiring.flipped(self.port_data))
        wiring.connect(m, wiring.flipped(self.pass_state), lines.pass_state)
        m.d.comb += [lines.last_index.eq(fields.vocabulary - 1), top_k.k.eq(fields.top_k)]
        issued_all, in_flight = self._logits(m, running, fields.vocabulary, argmax, top_k, lines)

        row = Signal(range(self.params.rows + 1))
        entry = Signal(range(self.params.top_k + 1))
        word = Signal(2)
        wants, slot, best = Signal(WANTS), Signal(range(self.params.max_slots)), argmax.best
        m.d.comb += [
            wants.eq(_pick([_wants(flags) for flags in self.pass_state.flags], row)),
            slot.eq(_pick([slot[:len(slot)] for slot in self.pass_state.slot], row)), self.slot.eq(slot),
            argmax.best_row.eq(row), self.slot_token.eq(best.index), top_k.read_row.eq(row),
        ]
        wants_top, wants_best = wants.top_k, wants.argmax
        # Lines and results take turns at the writer.
        result_run, result_words = Signal(), Signal()
        result_word = Signal(32)
        m.d.comb += [
            writer.run.valid.eq(lines.run.valid | result_run),
            writer.run.p.eq(lines.run.p), lines.run.ready.eq(writer.run.ready),
            writer.words.valid.eq(lines.words.valid | result_words),
            writer.words.payload.eq(Mux(result_words, result_word, lines.words.payload)),
            lines.words.ready.eq(writer.words.ready),
        ]
        with m.If(result_run):
            m.d.comb += [
                writer.run.p.address.eq(self.pass_state.results_address + row * result_bytes(self.params.top_k)),
                writer.run.p.words.eq(RESULT_HEADER.words + Mux(wants_top, fields.top_k << 1, 0)),
            ]

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.comb += self.command.ready.eq(1)
                m.d.sync += [command.eq(self.command.payload), row.eq(0)]
                with m.If(self.command.valid):
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [argmax.clear.eq(1), top_k.clear.eq(1)]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += running.eq(1)
                with m.If(issued_all & ~in_flight & top_k.idle & ~lines.busy):
                    m.next = "ROW"
            with m.State("ROW"):
                with m.If(row == self.pass_state.rows):
                    with m.If(~writer.busy):
                        m.d.comb += self.done.eq(1)
                        m.next = "IDLE"
                with m.Elif(wants_best | wants_top):
                    m.d.comb += result_run.eq(1)
                    with m.If(writer.run.ready):
                        m.d.comb += self.slot_write.eq(wants_best)
                        m.d.sync += [word.eq(0), entry.eq(0)]
                        m.next = "RESULT"
                with m.Else():
                    m.d.sync += row.eq(row + 1)
            with m.State("RESULT"):
                m.d.comb += result_words.eq(1)
                with m.Switch(word):
                    with m.Case(0):
                        m.d.comb += result_word.eq(best.index)
                    with m.Case(1):
                        m.d.comb += result_word.eq(best.bits)
                    with m.Case(2):
                        m.d.comb += result_word.eq(Mux(wants_top, fields.top_k, 0))
                with m.If(writer.words.ready):
                    m.d.sync += word.eq(word + 1)
                    with m.If(word == RESULT_HEADER.words - 1):
                        with m.If(wants_top):
                            m.d.comb += top_k.read.eq(1)
                            m.next = "INDEX"
                        with m.Else():
                            m.d.sync += row.eq(row + 1)
                            m.next = "ROW"
            with m.State("INDEX"):
                m.d.comb += [result_words.eq(top_k.entries.valid), result_word.eq(top_k.entries.p.index)]
                with m.If(top_k.entries.valid & writer.words.ready):
                    m.next = "BITS"
            with m.State("BITS"):
                m.d.comb += [result_words.eq(1), result_word.eq(top_k.entries.p.bits),
                             top_k.entries.ready.eq(writer.words.ready)]
                with m.If(writer.words.ready):
                    m.d.sync += entry.eq(entry + 1)
                    m.next = "INDEX"
                    with m.If(entry + 1 == fields.top_k):
                        m.d.sync += row.eq(row + 1)
                        m.next = "ROW"
        return m

    def _operands(self, m):
        """Rows' segments into the operand memory, scales into registers."""
        source, target = self.head_operands, self.operand_write
        lanes = self.params.row_vectors
        turn, lane = Signal(6), Signal(bits_for(lanes - 1))
        with m.Switch(source.p.row):
            for row in range(self.params.rows):
                with m.Case(row):
                    m.d.comb += [turn.eq(row // lanes), lane.eq(row % lanes)]
        m.d.comb += [
            target.valid.eq(source.valid), source.ready.eq(target.ready),
            target.p.address.eq(turn * self.turn_stride + source.p.segment), target.p.lane.eq(lane),
            target.p.mask.eq(-1), target.p.data.eq(source.p.data), self.row_scales.ready.eq(1),
        ]
        m.submodules.scales = scales = Memory(shape=32, depth=max(2, self.params.rows), init=[])
        write, self.row_scale = scales.write_port(), scales.read_port(domain="comb")
        m.d.comb += [write.addr.eq(self.row_scales.p.row), write.data.eq(self.row_scales.p.scale),
                     write.en.eq(self.row_scales.valid)]

    def _beats(self, m, running, segments):
        """Head rows to the dot engine, segment after segment of S vocabulary rows."""
        segment = Signal(16)
        rows, beats = self.head_rows, self.beats
        turns = Signal(6)
        with m.Switch(self.pass_state.rows):
            for count in range(1, self.params.rows + 1):
                with m.Case(count):
                    m.d.comb += turns.eq((count - 1) // self.params.row_vectors)
        last = segment == segments - 1
        m.d.comb += [
            beats.valid.eq(rows.valid & running), rows.ready.eq(beats.ready & running),
            beats.p.data.eq(rows.p.data), beats.p.operand.eq(segment), beats.p.turns.eq(turns),
            beats.p.turn_stride.eq(self.turn_stride), beats.p.first.eq(segment == 0), beats.p.last.eq(last),
            beats.p.tag.eq(0),
        ]
        with m.If(beats.valid & beats.ready):
            m.d.sync += segment.eq(Mux(last, 0, segment + 1))

    def _logits(self, m, running, vocabulary, argmax, top_k, lines):
        """Results one dot at a time through the logit kernel to whoever wants them.

        Returns (all dots of the vocabulary are issued, some logit is still in the pipeline).
        """
        p = self.params
        # Scales of a chunk lie before its rows in the stream, so two chunks' must fit.
        chunk = round_up(HEAD_CHUNK_ROWS, p.segments)
        m.submodules.scale_fifo = fifo = SyncFIFOBuffered(width=8 * p.beat_bytes, depth=2 * (4 * chunk // p.beat_bytes))
        groups_per_beat = p.beat_bytes // 4 // p.segments
        m.d.comb += [fifo.w_data.eq(self.head_scales.p.data), fifo.w_en.eq(self.head_scales.valid),
                     self.head_scales.ready.eq(fifo.w_rdy)]
        lane, element = Signal(bits_for(p.row_vectors - 1)), Signal(bits_for(p.segments - 1))
        first_index, group = Signal(32), Signal(bits_for(groups_per_beat - 1))
        row, index = Signal(range(p.rows + p.row_vectors + 1)), Signal(32)
        wants = Signal(WANTS)
        result = self.results.p
        exists = Signal()
        row_here = row[:bits_for(p.rows - 1)]
        m.d.comb += [
            row.eq(result.turn * p.row_vectors + lane), index.eq(first_index | element),  # S is a power of two
            exists.eq(row < self.pass_state.rows),
            wants.eq(Mux(exists, _pick([_wants(flags) for flags in self.pass_state.flags], row_here), 0)),
        ]
        wanted = wants.as_value().any() & (index < vocabulary)
        tag_layout = data.StructLayout({"row": bits_for(p.rows - 1), "index": 32, "wants": WANTS})
        dot_bits = bits_for(ACTIVATION_MAX ** 2 * p.max_vector_elements) + 1
        m.submodules.logit = kernel = self.kernels["logit"].pipeline(
            lanes=1, ii=1, tag_bits=tag_layout.size, ranges={"acc": signed_range(dot_bits)})
        tag = tag_layout(kernel.i.p.tag)
        issue = self.results.valid & running & fifo.r_rdy
        step = Signal()
        dot = Signal(dot_bits)
        dots = [[result.dots[a][s][:dot_bits] for s in range(p.segments)] for a in range(p.row_vectors)]
        m.d.comb += [
            dot.eq(_pick([_pick(of_lane, element) for of_lane in dots], lane)),
            kernel.i.valid.eq(issue & wanted), step.eq(issue & (kernel.i.ready | ~wanted)),
            kernel.i.p.acc[0].eq(dot), self.row_scale.addr.eq(row_here), kernel.i.p.row_scale.eq(self.row_scale.data),
            kernel.i.p.vocabulary_scale[0].eq(_pick([_pick([fifo.r_data.word_select(g * p.segments + s, 32)
                                                            for s in range(p.segments)], element)
                                                     for g in range(groups_per_beat)], group)),
            tag.row.eq(row), tag.index.eq(index), tag.wants.eq(wants),
        ]
        # An element of a lane a cycle; a whole lane is left out where its row wants nothing.
        skip = ~wants.as_value().any()
        last_element = skip | (element == p.segments - 1)
        last_lane = (lane == p.row_vectors - 1) | (row + 1 >= self.pass_state.rows)
        group_done = last_element & last_lane & (row + 1 >= self.pass_state.rows)
        m.d.comb += self.results.ready.eq(step & last_element & last_lane)
        with m.If(step):
            m.d.sync += element.eq(Mux(last_element, 0, element + 1))
            with m.If(last_element):
                m.d.sync += lane.eq(Mux(last_lane, 0, lane + 1))
            with m.If(group_done):
                m.d.sync += [first_index.eq(first_index + p.segments), group.eq(group + 1)]
                with m.If((group == groups_per_beat - 1) | self._chunk_ends(first_index, vocabulary, chunk)):
                    m.d.comb += fifo.r_en.eq(1)
                    m.d.sync += group.eq(0)
        issued_all = first_index >= vocabulary
        with m.If(~running):
            m.d.sync += [first_index.eq(0), group.eq(0)]

        # A logit goes to all who want it in the same cycle.
        out = kernel.o
        told = tag_layout(out.p.tag)
        to_argmax, to_top_k, to_lines = told.wants.argmax, told.wants.top_k, told.wants.logits
        ready = (top_k.logits.ready | ~to_top_k) & (lines.logits.ready | ~to_lines)
        m.d.comb += out.ready.eq(ready)
        # A result of a TOP_K row has an argmax in it, too.
        for sink, wants in ((argmax, to_argmax | to_top_k), (top_k, to_top_k), (lines, to_lines)):
            m.d.comb += [sink.logits.valid.eq(out.valid & ready & wants), sink.logits.p.row.eq(told.row),
                         sink.logits.p.index.eq(told.index), sink.logits.p.bits.eq(out.p.value[0])]
        pending = Signal(8)
        m.d.sync += pending.eq(pending + (kernel.i.valid & kernel.i.ready) - (out.valid & out.ready))
        return issued_all, pending != 0

    def _chunk_ends(self, first_index, vocabulary, chunk):
        """The group at ``first_index`` is the last one of its record of scales."""
        following = first_index + self.params.segments
        end = following >= vocabulary
        if chunk & (chunk - 1) == 0:
            return end | (following[:bits_for(chunk - 1)] == 0)
        raise ValueError(f"a head chunk of {chunk} rows is not a power of two")


def _wants(flags: Value) -> Value:
    """WANTS of a row's RowFlag bits."""
    return Cat((flags & flag.value).any() for flag in (RowFlag.ARGMAX, RowFlag.TOP_K, RowFlag.LOGITS))


def _pick(values: list, index: Value) -> Value:
    """``values[index]`` by a tree of multiplexers: less logic than what synthesis makes of a shift."""
    if len(values) == 1:
        return values[0]
    pairs = [Mux(index[0], *reversed(values[n:n + 2])) if n + 1 < len(values) else values[n]
             for n in range(0, len(values), 2)]
    return _pick(pairs, index[1:])
