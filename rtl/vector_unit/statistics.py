"""Σx² and absmax|x·g| of every row, gathered while the rows are written."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import PARTIAL_SUMS, bits_for
from rtl.streams import shapes
from rtl.vector_unit.kernel_ports import Kernels, assign
from rtl.vector_unit.partial_sums import PartialSums
from rtl.vector_unit.word_memory import Lookup, float_words

WORD_BITS = 16


def statistics_word(params: DesignParams) -> data.StructLayout:
    """W elements of a row, ``word`` counted in the row, and the norm that they are for."""
    return data.StructLayout({"row": shapes.row_bits(params), "word": WORD_BITS, "has_norm": 1, "gain_bank": 1,
                              "data": float_words(params.vector_lanes)})


FOLD = data.StructLayout({"words": WORD_BITS, "sums": 1})
"""Close the statistics of rows of ``words`` words; without ``sums`` only absmax is wanted, and nothing is folded."""


class Statistics(wiring.Component):
    """sum_squares[r] = Σ x[r]², absmax[r] = max |x[r]·g| for r = 0 … R−1; without a norm g is 1.

    Streams
    -------
    words (in) : words of rows; a row's words come in rising order from 0 on, rows in any order. A row starts afresh
                 with its word 0.
    fold (in)  : taken when every word accepted before is in and the sums are folded; from then on ``row`` →
                 ``sum_squares``, ``absmax`` (float32, the same cycle) hold, until the rows' next words come.

    Ports: ``rows`` (R), ``gain_full`` and the gain port of ``GainMemory``: a word of a norm waits until the bank of its
    gains is full. ``empty``: nothing is under way.

    Timing: a word a cycle; a fold of R rows takes ``fold_cycles(W, R)`` from ``fold.valid`` to its handshake.
    Number format and rounding: float32; 64 partial sums by element index mod 64, folded by halves (PartialSums).
    """

    def __init__(self, params: DesignParams, kernels: Kernels):
        self.params, self.kernels = params, kernels
        lanes = params.vector_lanes
        row = shapes.row_bits(params)
        gain_port = wiring.Signature({"enable": Out(1), "bank": Out(1), "word": Out(range(params.gain_words)),
                                      "data": In(float_words(lanes))})
        super().__init__({
            "words": In(stream.Signature(statistics_word(params))),
            "fold": In(stream.Signature(FOLD)),
            "rows": In(bits_for(params.rows)),
            "gain_full": In(2), "gains": Out(gain_port),
            "row": In(row), "sum_squares": Out(32), "absmax": Out(32),
            "empty": Out(1),
        })

    @staticmethod
    def fold_cycles(lanes: int, rows: int) -> int:
        """Cycles from ``fold.valid`` on empty pipelines to its handshake, both cycles included."""
        return PartialSums.fold_cycles(lanes, rows) + 2

    def elaborate(self, platform):
        m = Module()
        params, lanes = self.params, self.params.vector_lanes
        row_bits = shapes.row_bits(params)
        words_log2 = (PARTIAL_SUMS // lanes).bit_length() - 1

        m.submodules.lookup = lookup = Lookup(statistics_word(params))
        # What follows the kernel needs: row, word mod 64/W, whether the word opens its partial sums, and its row.
        tag = data.StructLayout({"row": row_bits, "word": words_log2, "opens_sums": 1, "opens_row": 1})
        m.submodules.kernel = kernel = self.kernels["norm_statistics"].pipeline(
            lanes=lanes, ii=1, tag_bits=tag.size)

        word = self.words.p
        usable = ~word.has_norm | self.gain_full.bit_select(word.gain_bank, 1)
        m.d.comb += [
            lookup.i.valid.eq(self.words.valid & usable),
            self.words.ready.eq(lookup.i.ready & usable),
            lookup.i.p.eq(word),
            self.gains.enable.eq(lookup.enable), self.gains.bank.eq(word.gain_bank), self.gains.word.eq(word.word),
        ]
        found = lookup.o.p
        m.d.comb += [
            kernel.i.valid.eq(lookup.o.valid), lookup.o.ready.eq(kernel.i.ready),
            *assign(kernel.i.p, x=found.data, gain=self.gains.data, has_norm=found.has_norm),
            kernel.i.p.tag.eq(Cat(found.row, found.word[:words_log2], found.word[words_log2:] == 0, found.word == 0)),
        ]
        result_tag = data.View(tag, kernel.o.p.tag)

        # Words under way, so that a fold knows when all are in.
        m.submodules.sums = sums = PartialSums(params)
        under_way = Signal(range(64))
        entered, left = Signal(), Signal()
        m.d.comb += [
            entered.eq(self.words.valid & self.words.ready), left.eq(kernel.o.valid & kernel.o.ready),
            self.empty.eq((under_way == 0) & sums.empty),
        ]
        m.d.sync += under_way.eq(under_way + entered - left)

        m.d.comb += [
            sums.terms.valid.eq(kernel.o.valid), kernel.o.ready.eq(sums.terms.ready),
            sums.terms.p.row.eq(result_tag.row), sums.terms.p.word.eq(result_tag.word),
            sums.terms.p.opens.eq(result_tag.opens_sums), *assign(sums.terms.p, data=kernel.o.p.square),
            sums.rows.eq(self.rows), sums.row.eq(self.row), self.sum_squares.eq(sums.sum),
        ]

        # The largest magnitude of each word, a level of the tree a cycle, then of the row. Magnitudes are
        # non-negative, so their bit patterns order as they do, NaN above all.
        level = [kernel.o.p.magnitude[n] for n in range(lanes)]
        valid, row, opens = left, result_tag.row, result_tag.opens_row
        busy = []
        while len(level) > 1:
            depth = len(level)
            maxima = [Signal(32, name=f"maximum_{depth}_{n}") for n in range(depth // 2)]
            next_valid, next_row, next_opens = (Signal(1, name=f"maximum_valid_{depth}"),
                                                Signal(row_bits, name=f"maximum_row_{depth}"),
                                                Signal(1, name=f"maximum_opens_{depth}"))
            m.d.sync += [next_valid.eq(valid), next_row.eq(row), next_opens.eq(opens)]
            m.d.sync += [into.eq(_larger(level[2 * n], level[2 * n + 1])) for n, into in enumerate(maxima)]
            level, valid, row, opens = list(maxima), next_valid, next_row, next_opens
            busy.append(next_valid)
        m.submodules.absmax = absmax = Memory(shape=32, depth=params.rows, init=[])
        write, mine, asked = absmax.write_port(), absmax.read_port(domain="comb"), absmax.read_port(domain="comb")
        m.d.comb += [
            mine.addr.eq(row), write.addr.eq(row), write.en.eq(valid),
            write.data.eq(Mux(opens, level[0], _larger(level[0], mine.data))),
            asked.addr.eq(self.row), self.absmax.eq(asked.data),
        ]

        folding, folded = Signal(), Signal()
        calm = self.empty & ~Cat(*busy).any()
        m.d.comb += [
            sums.fold.valid.eq(folding), sums.fold.p.eq(self.fold.p.words),
            self.fold.ready.eq(Mux(self.fold.p.sums, folded, calm)),
        ]
        m.d.sync += folded.eq(sums.fold.valid & sums.fold.ready)
        with m.If(self.fold.valid & self.fold.p.sums & calm & ~folding & ~folded):
            m.d.sync += folding.eq(1)
        with m.Elif(sums.fold.ready):
            m.d.sync += folding.eq(0)
        return m


def _larger(a, b):
    """Of two non-negative floats."""
    return Mux(a[:31] > b[:31], a, b)
