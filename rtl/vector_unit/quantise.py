"""QUANTISE: (norm and) quantise a vector to int8, K slice by K slice."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.contract.command_words import QUANTISE, QuantiseTarget
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for
from rtl.streams import shapes
from rtl.vector_unit.kernel_ports import Kernels, assign
from rtl.vector_unit.slice_assembler import SliceAssembler
from rtl.vector_unit.statistics import FOLD, Statistics
from rtl.vector_unit.word_memory import Lookup, float_words

FINALISE_II = 4
"""A row's scales are computed once; the kernel may share operators."""


def word_tag(params: DesignParams) -> data.StructLayout:
    """What the assembler must know of a word: of its slice, and whether it lies beyond the row."""
    offset = bits_for(params.vector_lanes - 1)
    return data.StructLayout({"offset": offset, "zero": 1, "first": 1, "last": 1, "final": 1})


class Quantise(wiring.Component):
    """codes[r] = clamp(rint(x[r]·g·inverse[r]), ±127), slice by slice; inverse and scale of a row from its statistics.

    For each K slice (T·G elements, or 16 for the head), for each row: one transfer. Elements beyond the row are zero.

    Streams
    -------
    command (in)             : QUANTISE command words.
    fold (out)               : to Statistics; once taken, ``row`` → ``sum_squares``, ``absmax`` hold.
    activation (out)         : slices, rows within a slice; target ACTIVATION.
    head_operands, row_scales (out) : segments likewise, and a float32 scale a row (before the segments); target HEAD.

    Ports
    -----
    rows            : R.
    read            : {enable, vector (else residual), address → data READ_LATENCY later}, memory of the source.
    gains           : {enable, bank, word → data}, ``gain_claim`` while it is used, ``gain_release`` a bit a bank,
                      ``gain_full``.
    activation_free : bit b: buffer b may be filled.
    scale           : {activation, row → scale} in the same cycle: of the rows last quantised into that buffer.
    done, busy; folds: waits for its statistics; waits_for_room: for gains or for the buffer.

    Timing: ``interval_cycles``: the fold, then a word of W a cycle. A slice that starts within a word takes one more.
    Number formats: kernels norm_finalise and norm_quantise.
    """

    def __init__(self, params: DesignParams, kernels: Kernels):
        self.params = params
        row = row_bits = shapes.row_bits(params)
        words = max(params.residual_words, params.vector_words)
        word = float_words(params.vector_lanes)
        super().__init__({
            "command": In(stream.Signature(shapes.COMMAND_BITS)), "done": Out(1), "busy": Out(1),
            "rows": In(bits_for(params.rows)),
            "fold": Out(stream.Signature(FOLD)), "row": Out(row), "sum_squares": In(32), "absmax": In(32),
            "read": Out(wiring.Signature({"enable": Out(1), "vector": Out(1), "address": Out(range(words)),
                                          "data": In(word)})),
            "gains": Out(wiring.Signature({"enable": Out(1), "bank": Out(1), "word": Out(range(params.gain_words)),
                                           "data": In(word)})),
            "gain_claim": Out(1), "gain_release": Out(2), "gain_full": In(2),
            "activation": Out(stream.Signature(shapes.activation_slice(params))), "activation_free": In(2),
            "head_operands": Out(stream.Signature(shapes.head_operand(params))),
            "row_scales": Out(stream.Signature(shapes.row_scale(params))),
            "folds": Out(1), "waits_for_room": Out(1),
            "scale": In(wiring.Signature({"activation": Out(1), "row": Out(row), "scale": In(32)})),
        })
        self.assembler = SliceAssembler(params.vector_lanes, params.slice_elements)
        self.finalise = kernels["norm_finalise"].pipeline(lanes=1, ii=FINALISE_II, tag_bits=row_bits)
        self.kernel = kernels["norm_quantise"].pipeline(lanes=params.vector_lanes, ii=1, tag_bits=word_tag(params).size)

    def first_slice_cycles(self, rows: int, has_norm: bool) -> int:
        """Cycles from the command's acceptance to the first slice, statistics, gains and buffer being there."""
        fold = Statistics.fold_cycles(self.params.vector_lanes, rows) if has_norm else 1
        words = self.assembler.slice_words(0)
        return fold + self.finalise.latency_cycles + Lookup.latency_cycles + self.kernel.latency_cycles + words + 2

    def slice_cycles(self, rows: int, slices: int, for_head: bool = False) -> int:
        """Cycles from the first word's read to the last one's, for all slices of all rows, when nobody stalls."""
        lanes, elements = self.params.vector_lanes, self.params.slice_elements
        words = [SEGMENT_BYTES // lanes if for_head else self.assembler.slice_words(k * elements % lanes)
                 for k in range(slices)]
        # Rows of the first slice wait for their inverses, which come FINALISE_II cycles apart.
        return rows * sum(words) + (rows - 1) * max(0, FINALISE_II - words[0])

    def elaborate(self, platform):
        m = Module()
        params, lanes = self.params, self.params.vector_lanes
        row_bits, count_bits = shapes.row_bits(params), bits_for(params.rows)

        command = Signal(shapes.command_layout(QUANTISE))
        for_head = command.target == QuantiseTarget.HEAD
        m.submodules.assembler = assembler = self.assembler

        # --- a row's scales, rows rising ---
        m.submodules.finalise = finalise = self.finalise
        m.submodules.inverses = inverses = Memory(shape=32, depth=params.rows, init=[])
        m.submodules.scales = scales = Memory(shape=32, depth=2 * params.rows, init=[])
        finalising, asked, known = Signal(), Signal(count_bits), Signal(count_bits)
        write_inverse, write_scale = inverses.write_port(), scales.write_port()
        inverse, scale = inverses.read_port(domain="comb"), scales.read_port(domain="comb")
        given = Signal()
        m.d.comb += [
            self.row.eq(asked),
            finalise.i.valid.eq(finalising & (asked != self.rows)),
            *assign(finalise.i.p, sum_squares=self.sum_squares, absmax=self.absmax, inv_n=command.inverse_count,
                    eps=command.epsilon, has_norm=command.has_norm),
            finalise.i.p.tag.eq(asked),
            finalise.o.ready.eq(~for_head | self.row_scales.ready),
            self.row_scales.valid.eq(for_head & finalise.o.valid),
            self.row_scales.p.row.eq(finalise.o.p.tag), self.row_scales.p.scale.eq(_plain(finalise.o.p.scale)),
            given.eq(finalise.o.valid & finalise.o.ready),
            write_inverse.addr.eq(finalise.o.p.tag), write_inverse.data.eq(_plain(finalise.o.p.inv)),
            write_inverse.en.eq(given),
            write_scale.addr.eq(Cat(command.activation, finalise.o.p.tag)),
            write_scale.data.eq(_plain(finalise.o.p.scale)), write_scale.en.eq(given & ~for_head),
            scale.addr.eq(Cat(self.scale.activation, self.scale.row)), self.scale.scale.eq(scale.data),
        ]
        with m.If(finalise.i.valid & finalise.i.ready):
            m.d.sync += asked.eq(asked + 1)
        with m.If(given):
            m.d.sync += known.eq(known + 1)

        # --- words of slices: read, quantise, assemble ---
        m.submodules.lookup = lookup = Lookup(data.StructLayout({"row": row_bits, "tag": word_tag(params)}))
        tag = word_tag(params)
        m.submodules.kernel = kernel = self.kernel
        found, result = lookup.o.p, data.View(tag, kernel.o.p.tag)
        m.d.comb += [
            inverse.addr.eq(found.row),
            kernel.i.valid.eq(lookup.o.valid), lookup.o.ready.eq(kernel.i.ready),
            *assign(kernel.i.p, x=self.read.data, gain=self.gains.data, has_norm=command.has_norm, inv=inverse.data),
            kernel.i.p.tag.eq(found.tag),
            assembler.i.valid.eq(kernel.o.valid), kernel.o.ready.eq(assembler.i.ready),
            *(assembler.i.p.data[n].eq(kernel.o.p.value[n]) for n in range(lanes)),
            *(assembler.i.p[name].eq(result[name]) for name, _ in tag),
        ]

        # --- where slices go ---
        out_row, out_slice = Signal(row_bits), Signal(16)
        sent = Signal()
        m.d.comb += [
            self.activation.valid.eq(assembler.o.valid & ~for_head),
            self.activation.p.buffer.eq(command.activation), self.activation.p.slice.eq(out_slice),
            self.activation.p.row.eq(out_row), self.activation.p.data.eq(assembler.o.p.slice),
            self.head_operands.valid.eq(assembler.o.valid & for_head),
            self.head_operands.p.row.eq(out_row), self.head_operands.p.segment.eq(out_slice),
            self.head_operands.p.data.eq(assembler.o.p.segment),
            assembler.o.ready.eq(Mux(for_head, self.head_operands.ready, self.activation.ready)),
            sent.eq(assembler.o.valid & assembler.o.ready),
        ]
        with m.If(sent):
            m.d.sync += out_row.eq(out_row + 1)
            with m.If(out_row + 1 == self.rows):
                m.d.sync += [out_row.eq(0), out_slice.eq(out_slice + 1)]

        # --- walking the slices ---
        step_words, step_rest = divmod(params.slice_elements, lanes)
        row, slice_, word = Signal(row_bits), Signal(16), Signal(16)
        start, offset, row_base = Signal(17), Signal(bits_for(lanes - 1)), Signal(17)
        slice_words = Mux(for_head, SEGMENT_BYTES // lanes, -(-params.slice_elements // lanes) + (offset != 0))
        reading, last_word, last_row, last_slice = Signal(), Signal(), Signal(), Signal()
        here = Signal(17)
        m.d.comb += [
            here.eq(start + word),
            last_word.eq(word + 1 == slice_words), last_row.eq(row + 1 == self.rows),
            last_slice.eq(slice_ + 1 == command.slices),
            lookup.i.valid.eq(reading & (row < known)),
            lookup.i.p.row.eq(row), lookup.i.p.tag.offset.eq(offset), lookup.i.p.tag.zero.eq(here >= command.words),
            lookup.i.p.tag.first.eq(word == 0), lookup.i.p.tag.last.eq(last_word),
            lookup.i.p.tag.final.eq(last_word & last_row & last_slice),
            self.read.enable.eq(lookup.enable), self.read.vector.eq(command.source),
            self.read.address.eq(row_base + here),
            self.gains.enable.eq(lookup.enable), self.gains.bank.eq(command.gain_bank), self.gains.word.eq(here),
            self.gain_claim.eq(self.busy & command.has_norm),
        ]
        finished = Signal()
        with m.If(lookup.i.valid & lookup.i.ready):
            m.d.sync += word.eq(word + 1)
            with m.If(last_word):
                m.d.sync += [word.eq(0), row.eq(row + 1), row_base.eq(row_base + command.row_words)]
                with m.If(last_row):
                    m.d.sync += [row.eq(0), row_base.eq(0), slice_.eq(slice_ + 1)]
                    with m.If(for_head):
                        m.d.sync += start.eq(start + SEGMENT_BYTES // lanes)
                    with m.Elif(offset + step_rest >= lanes):
                        m.d.sync += [start.eq(start + step_words + 1), offset.eq(offset + step_rest - lanes)]
                    with m.Else():
                        m.d.sync += [start.eq(start + step_words), offset.eq(offset + step_rest)]
                    m.d.comb += finished.eq(last_slice)

        # --- the command ---
        m.d.comb += self.busy.eq(~self.command.ready)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.command.ready.eq(1)
                with m.If(self.command.valid):
                    m.d.sync += [
                        command.eq(self.command.p), asked.eq(0), known.eq(0), out_row.eq(0), out_slice.eq(0),
                        row.eq(0), slice_.eq(0), word.eq(0), start.eq(0), offset.eq(0), row_base.eq(0),
                    ]
                    m.next = "fold"
            with m.State("fold"):
                m.d.comb += [self.folds.eq(1), self.fold.valid.eq(1), self.fold.p.words.eq(command.words),
                             self.fold.p.sums.eq(command.has_norm)]
                with m.If(self.fold.ready):
                    m.d.sync += finalising.eq(1)
                    m.next = "wait"
            with m.State("wait"):
                gains_there = ~command.has_norm | self.gain_full.bit_select(command.gain_bank, 1)
                buffer_free = for_head | self.activation_free.bit_select(command.activation, 1)
                m.d.comb += self.waits_for_room.eq(~(gains_there & buffer_free))
                with m.If(gains_there & buffer_free):
                    m.next = "slices"
            with m.State("slices"):
                m.d.comb += reading.eq(1)
                with m.If(finished):
                    m.next = "finish"
            with m.State("finish"):
                with m.If(sent & assembler.o.p.final):
                    m.d.sync += finalising.eq(0)
                    m.d.comb += [
                        self.done.eq(1),
                        self.gain_release.eq(Mux(command.has_norm, 1 << command.gain_bank, 0)),
                    ]
                    m.next = "idle"
        return m


def _plain(field):
    """A one-lane result, whether it is an array of one or plain."""
    return field[0] if isinstance(field, data.View) else field
