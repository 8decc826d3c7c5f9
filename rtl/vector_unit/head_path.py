"""Sums of query, key and value heads: scaled, rotated, quantised."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import VECTOR_ALIGN, signed_range
from rtl.streams import shapes
from rtl.vector_unit.head_quantise import HeadQuantise, head_word
from rtl.vector_unit.kernel_ports import Kernels, assign
from rtl.vector_unit.ring_reader import sums_word
from rtl.vector_unit.word_memory import Lookup, float_words, read_port

FLOAT_ONE = 0x3F800000


def rotary_words_log2(params: DesignParams) -> int:
    """A row's rotary words in their memory, as a power of two: word i holds W/2 pairs (cos, sin) from pair i·W/2 on."""
    words = -(-params.max_head_dim // params.vector_lanes)
    return max(1, (words - 1).bit_length())


def rotary_depth(params: DesignParams) -> int:
    return max(2, params.rows) << rotary_words_log2(params)


class HeadPath(wiring.Component):
    """head = quantise(rotate(sums·scale[row], position of row)); a value head is not rotated (cos 1, sin 0).

    Streams
    -------
    sums (in)                : words of W sums of whole heads, each padded to VECTOR_ALIGN outputs; pairs side by side.
    heads, head_scales (out) : as of HeadQuantise.

    Ports: ``kind``, ``first_head``, ``head_dim``: stable while heads are under way; ``rotary``: read port of the memory
    [row][word] of ``rotary_words_log2``; ``row`` → ``scale`` in the same cycle; ``done``: the last segment is handed
    over.

    Timing: a word a cycle (see HeadQuantise). Number formats: kernel dequantise_rotate, then HeadQuantise.
    """

    def __init__(self, params: DesignParams, kernels: Kernels):
        self.params, self.kernels = params, kernels
        super().__init__({
            "kind": In(shapes.HeadKind), "first_head": In(8), "head_dim": In(range(params.max_head_dim + 1)),
            "sums": In(stream.Signature(sums_word(params))),
            "rotary": Out(read_port(rotary_depth(params), float_words(params.vector_lanes))),
            "row": Out(shapes.row_bits(params)), "scale": In(32),
            "heads": Out(stream.Signature(shapes.head_segment(params))),
            "head_scales": Out(stream.Signature(shapes.head_scale(params))),
            "done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        params, lanes = self.params, self.params.vector_lanes
        pairs = lanes // 2
        lanes_log2 = lanes.bit_length() - 1
        m.submodules.quantise = quantise = HeadQuantise(params, self.kernels)
        align_words = VECTOR_ALIGN // lanes
        head_words = Signal(quantise.head_words.shape())
        m.d.comb += [
            head_words.eq(((self.head_dim + VECTOR_ALIGN - 1) >> 3) * align_words),
            quantise.kind.eq(self.kind), quantise.first_head.eq(self.first_head), quantise.head_words.eq(head_words),
        ]

        # --- the pairs' cosines and sines ---
        flags = data.StructLayout({"head_last": 1, "row_last": 1, "last": 1})
        sums = self.sums.p
        context = data.StructLayout({"sums": sums.gate.shape(), "row": shapes.row_bits(params),
                                     "valid_pairs": pairs, "flags": flags})
        m.submodules.lookup = lookup = Lookup(context)
        word = Signal(head_words.shape())
        rotary_word = Signal(rotary_words_log2(params))
        head_last = word + 1 == head_words
        m.d.comb += [
            lookup.i.valid.eq(self.sums.valid), self.sums.ready.eq(lookup.i.ready),
            lookup.i.p.sums.eq(sums.gate), lookup.i.p.row.eq(sums.row),
            *(lookup.i.p.valid_pairs[n].eq((word << lanes_log2) + 2 * n < self.head_dim) for n in range(pairs)),
            lookup.i.p.flags.head_last.eq(head_last), lookup.i.p.flags.row_last.eq(sums.row_last),
            lookup.i.p.flags.last.eq(sums.last),
            self.rotary.enable.eq(lookup.enable),
            rotary_word.eq(word), self.rotary.address.eq(Cat(rotary_word, sums.row)),
        ]
        with m.If(lookup.i.valid & lookup.i.ready):
            m.d.sync += word.eq(Mux(head_last, 0, word + 1))

        # --- scale and rotate ---
        tag = data.StructLayout({"valid_pairs": pairs, "flags": flags})
        m.submodules.kernel = kernel = self.kernels["dequantise_rotate"].pipeline(
            lanes=pairs, ii=1, tag_bits=tag.size,
            ranges=dict.fromkeys(("acc0", "acc1"), signed_range(params.accumulator_bits)))
        found, result = lookup.o.p, data.View(tag, kernel.o.p.tag)
        is_value = self.kind == shapes.HeadKind.VALUE
        m.d.comb += [
            self.row.eq(found.row),
            kernel.i.valid.eq(lookup.o.valid), lookup.o.ready.eq(kernel.i.ready),
            *assign(kernel.i.p, scale=self.scale,
                    acc0=[found.sums[2 * n] for n in range(pairs)], acc1=[found.sums[2 * n + 1] for n in range(pairs)],
                    cos=[Mux(is_value, Const(FLOAT_ONE, 32), self.rotary.data[2 * n]) for n in range(pairs)],
                    sin=[Mux(is_value, Const(0, 32), self.rotary.data[2 * n + 1]) for n in range(pairs)]),
            kernel.i.p.tag.eq(Cat(found.valid_pairs, found.flags)),
            quantise.words.valid.eq(kernel.o.valid), kernel.o.ready.eq(quantise.words.ready),
            *(quantise.words.p[name].eq(result.flags[name]) for name, _ in flags),
        ]
        values = head_word(params)["data"].shape
        assert values.length == 2 * pairs
        for n in range(pairs):
            for lane, value in ((2 * n, kernel.o.p.first[n]), (2 * n + 1, kernel.o.p.second[n])):
                m.d.comb += quantise.words.p.data[lane].eq(Mux(result.valid_pairs[n], value, 0))

        connect(m, flipped(self.heads), quantise.heads)
        connect(m, flipped(self.head_scales), quantise.head_scales)
        m.d.comb += self.done.eq(quantise.done)
        return m
