"""Heads of float32 values to int8 segments with a bfloat16 scale each."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, round_up
from rtl.streams import shapes
from rtl.vector_unit.kernel_ports import Kernels, assign
from rtl.vector_unit.slice_assembler import SliceAssembler
from rtl.vector_unit.word_memory import Lookup, WordMemory, float_words

HEADS_UNDER_WAY = 8
SCALE_II = 4
"""A head has a scale; the kernel may share operators."""
LATENCY_WORDS = 48
"""Words that come while a head's scale is computed; beyond one head, what the buffer should hold for full rate."""


def head_word(params: DesignParams) -> data.StructLayout:
    """W values of a head, zeros beyond head_dim; ``head_last`` on the head's last word, ``row_last`` on the row's."""
    return data.StructLayout({"data": float_words(params.vector_lanes), "head_last": 1, "row_last": 1, "last": 1})


class HeadQuantise(wiring.Component):
    """scale[h] = absmax(x[h])/127 rounded up to bfloat16; codes[h] = clamp(rint(x[h]/scale[h]), ±127).

    Streams
    -------
    words (in)        : heads one after another, ``head_words`` words each (``head_dim`` padded to a multiple of 8).
    heads (out)       : ceil(head_dim/16) segments of 16 int8 a head, zeros beyond it; ``row`` from 0, ``head`` from
                        ``first_head`` in every row.
    head_scales (out) : a head's scale, before its first segment.

    Ports: ``kind``, ``first_head``, ``head_words``: stable while heads are under way; ``done``: the segment that the
    word flagged ``last`` led to is handed over.

    Timing: a word a cycle while the buffer (``buffer_words``) has room: it holds a whole head and what comes while
    that head's scale is computed. A head of 8 mod 16 elements takes 8/W cycles more. At most HEADS_UNDER_WAY heads.
    """

    def __init__(self, params: DesignParams, kernels: Kernels):
        self.params, self.kernels = params, kernels
        lanes = params.vector_lanes
        head_words = round_up(params.max_head_dim, 8) // lanes
        self.buffer_words = 1 << (head_words + LATENCY_WORDS - 1).bit_length()
        super().__init__({
            "kind": In(shapes.HeadKind), "first_head": In(8), "head_words": In(range(head_words + 1)),
            "words": In(stream.Signature(head_word(params))),
            "heads": Out(stream.Signature(shapes.head_segment(params))),
            "head_scales": Out(stream.Signature(shapes.head_scale(params))),
            "done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        params, lanes = self.params, self.params.vector_lanes
        depth = self.buffer_words
        flags = data.StructLayout({"row_last": 1, "last": 1})

        # --- in: values to the buffer, their absmax beside ---
        m.submodules.values = values = WordMemory(depth, float_words(lanes))
        write, read = Signal(range(depth)), Signal(range(depth))
        held = Signal(range(depth + 1))
        under_way = Signal(range(HEADS_UNDER_WAY + 1))
        taken, given, head_over = Signal(), Signal(), Signal()
        words = self.words
        m.d.comb += [
            words.ready.eq((held != depth) & (under_way != HEADS_UNDER_WAY)),
            taken.eq(words.valid & words.ready),
            values.write.enable.eq(taken), values.write.address.eq(write), values.write.data.eq(words.p.data),
        ]
        m.d.sync += [held.eq(held + taken - given),
                     under_way.eq(under_way + (taken & words.p.head_last) - head_over)]
        with m.If(taken):
            m.d.sync += write.eq(write + 1)

        # Magnitudes order as their bit patterns do, NaN above all.
        level = [words.p.data[n][:31] for n in range(lanes)]
        valid, ends, row_last, last = taken, words.p.head_last, words.p.row_last, words.p.last
        while len(level) > 1:
            size = len(level)
            maxima = [Signal(31, name=f"maximum_{size}_{n}") for n in range(size // 2)]
            carried = [Signal(name=f"{name}_{size}") for name in ("valid", "ends", "row_last", "last")]
            m.d.sync += [into.eq(Mux(level[2 * n] > level[2 * n + 1], level[2 * n], level[2 * n + 1]))
                         for n, into in enumerate(maxima)]
            m.d.sync += [into.eq(value) for into, value in zip(carried, (valid, ends, row_last, last))]
            level = list(maxima)
            valid, ends, row_last, last = carried
        running, largest = Signal(31), Signal(31)
        m.d.comb += largest.eq(Mux(level[0] > running, level[0], running))
        with m.If(valid):
            m.d.sync += running.eq(Mux(ends, 0, largest))
        m.submodules.maxima = maxima_queue = fifo.SyncFIFO(width=31 + flags.size, depth=HEADS_UNDER_WAY)
        m.d.comb += [maxima_queue.w_en.eq(valid & ends), maxima_queue.w_data.eq(Cat(largest, row_last, last))]

        # --- the head's scale ---
        m.submodules.scale = scale = self.kernels["head_scale"].pipeline(lanes=1, ii=SCALE_II, tag_bits=flags.size)
        m.submodules.inverses = inverses = fifo.SyncFIFO(width=32 + flags.size, depth=HEADS_UNDER_WAY)
        row, head = Signal(shapes.row_bits(params)), Signal(8)
        scale_flags = data.View(flags, scale.o.p.tag)
        m.d.comb += [
            scale.i.valid.eq(maxima_queue.r_rdy), maxima_queue.r_en.eq(scale.i.ready),
            *assign(scale.i.p, absmax=maxima_queue.r_data[:31]), scale.i.p.tag.eq(maxima_queue.r_data[31:]),
            # The queue of inverses has room for every head under way.
            self.head_scales.valid.eq(scale.o.valid), scale.o.ready.eq(self.head_scales.ready),
            self.head_scales.p.kind.eq(self.kind), self.head_scales.p.row.eq(row),
            self.head_scales.p.head.eq(self.first_head + head),
            self.head_scales.p.scale.eq(_plain(scale.o.p.scale)[16:]),
            inverses.w_en.eq(scale.o.valid & scale.o.ready),
            inverses.w_data.eq(Cat(_plain(scale.o.p.inverse), scale.o.p.tag)),
        ]
        with m.If(scale.o.valid & scale.o.ready):
            m.d.sync += head.eq(head + 1)
            with m.If(scale_flags.row_last):
                m.d.sync += [head.eq(0), row.eq(Mux(scale_flags.last, 0, row + 1))]

        # --- out: the buffer's values times the inverse, in whole segments ---
        context = data.StructLayout({"zero": 1, "segment_last": 1, "head_last": 1, "flags": flags, "inverse": 32})
        m.submodules.lookup = lookup = Lookup(context)
        word = Signal(range(round_up(params.max_head_dim, SEGMENT_BYTES) // lanes + 1))
        per_segment = SEGMENT_BYTES // lanes
        is_value, segment_ends, head_ends = Signal(), Signal(), Signal()
        m.d.comb += [
            is_value.eq(word < self.head_words),
            segment_ends.eq((word & (per_segment - 1)) == per_segment - 1),
            head_ends.eq(segment_ends & (word + 1 >= self.head_words)),
            lookup.i.valid.eq(inverses.r_rdy),
            lookup.i.p.zero.eq(~is_value), lookup.i.p.segment_last.eq(segment_ends), lookup.i.p.head_last.eq(head_ends),
            lookup.i.p.inverse.eq(inverses.r_data[:32]), lookup.i.p.flags.eq(inverses.r_data[32:]),
            values.read.enable.eq(lookup.enable), values.read.address.eq(read),
            inverses.r_en.eq(lookup.i.ready & head_ends),
            given.eq(lookup.i.valid & lookup.i.ready & is_value),
            head_over.eq(inverses.r_rdy & inverses.r_en),
        ]
        with m.If(given):
            m.d.sync += read.eq(read + 1)
        with m.If(lookup.i.valid & lookup.i.ready):
            m.d.sync += word.eq(Mux(head_ends, 0, word + 1))

        tag = data.StructLayout({"zero": 1, "segment_last": 1, "head_last": 1, "flags": flags})
        m.submodules.quantise = quantise = self.kernels["quantise_int8"].pipeline(lanes=lanes, ii=1, tag_bits=tag.size)
        m.submodules.assembler = assembler = SliceAssembler(lanes, SEGMENT_BYTES)
        found, result = lookup.o.p, data.View(tag, quantise.o.p.tag)
        out_flags = Signal(data.StructLayout({"head_last": 1, "flags": flags}))
        m.d.comb += [
            quantise.i.valid.eq(lookup.o.valid), lookup.o.ready.eq(quantise.i.ready),
            *assign(quantise.i.p, x=values.read.data, inverse=found.inverse),
            quantise.i.p.tag.eq(Cat(found.zero, found.segment_last, found.head_last, found.flags)),
            assembler.i.valid.eq(quantise.o.valid), quantise.o.ready.eq(assembler.i.ready),
            *(assembler.i.p.data[n].eq(quantise.o.p.value[n]) for n in range(lanes)),
            assembler.i.p.zero.eq(result.zero), assembler.i.p.last.eq(result.segment_last),
            assembler.i.p.final.eq(result.head_last & result.flags.last),
        ]
        with m.If(assembler.i.valid & assembler.i.ready):
            m.d.sync += [out_flags.head_last.eq(result.head_last), out_flags.flags.eq(result.flags)]

        out_row, out_head, segment = Signal(shapes.row_bits(params)), Signal(8), Signal(6)
        m.d.comb += [
            self.heads.valid.eq(assembler.o.valid), assembler.o.ready.eq(self.heads.ready),
            self.heads.p.kind.eq(self.kind), self.heads.p.row.eq(out_row),
            self.heads.p.head.eq(self.first_head + out_head), self.heads.p.segment.eq(segment),
            self.heads.p.data.eq(assembler.o.p.segment),
            self.done.eq(self.heads.valid & self.heads.ready & assembler.o.p.final),
        ]
        with m.If(self.heads.valid & self.heads.ready):
            m.d.sync += segment.eq(segment + 1)
            with m.If(out_flags.head_last):
                m.d.sync += [segment.eq(0), out_head.eq(out_head + 1)]
                with m.If(out_flags.flags.row_last):
                    m.d.sync += [out_head.eq(0), out_row.eq(Mux(out_flags.flags.last, 0, out_row + 1))]
        return m


def _plain(field):
    """A one-lane result, whether it is an array of one or plain."""
    return field[0] if isinstance(field, data.View) else field
