"""64 interleaved float32 sums a row, and their fold."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import PARTIAL_SUMS, bits_for
from rtl.float32.add import FloatAdd
from rtl.streams import shapes
from rtl.vector_unit.word_memory import float_words

READ_CYCLES = 1
PIPELINE_CYCLES = READ_CYCLES + FloatAdd.latency_cycles
"""From a sum's read to the cycle in which the new sum is written."""


class PartialSums(wiring.Component):
    """p[r][j] += term[j] by words of W, j < 64; then sum[r] by halves: p[j] += p[j + 32], 16, 8, 4, 2, 1.

    Streams
    -------
    terms (in) : ``row``, ``word`` (j / W), ``opens``: these sums begin with these terms; ``data`` W float32.
    fold (in)  : number of words that the rows had (those beyond are zero); taken when the fold of rows 0 … R−1 is done.

    Ports: ``rows`` (R); ``row`` → ``sum`` in the same cycle; ``empty``: no addition is under way.

    Timing: W terms a cycle unless the same sums are still under way (a word returns no sooner than 64/W words later,
    so that is rare). A fold waits until no addition is under way, then takes ``fold_cycles(W, R)`` from ``fold.valid``
    to its handshake; meanwhile no terms are taken.

    The two words of a fold's step lie in different banks, because their numbers differ in one bit and a word's bank is
    its number's parity: one read port each suffices.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        self.words_log2 = (PARTIAL_SUMS // params.vector_lanes).bit_length() - 1
        row = shapes.row_bits(params)
        super().__init__({
            "terms": In(stream.Signature(data.StructLayout({
                "row": row, "word": self.words_log2, "opens": 1, "data": float_words(params.vector_lanes)}))),
            "fold": In(stream.Signature(16)),
            "rows": In(bits_for(params.rows)),
            "row": In(row), "sum": Out(32), "empty": Out(1),
        })

    @staticmethod
    def fold_cycles(lanes: int, rows: int) -> int:
        """Of a fold with nothing under way, first and last cycle included."""
        words = PARTIAL_SUMS // lanes
        levels = PARTIAL_SUMS.bit_length() - 1
        within = lanes.bit_length() - 1
        return rows * (words - 1 + within) + levels * (PIPELINE_CYCLES + 1) + 2

    def elaborate(self, platform):
        m = Module()
        lanes, words_log2 = self.params.vector_lanes, self.words_log2
        row_bits = shapes.row_bits(self.params)
        # A step adds two words (or a word and terms): where it goes, and what the operands are.
        step = data.StructLayout({
            "row": row_bits, "word": words_log2, "from_terms": 1, "use_own": 1, "use_partner": 1, "use_shifted": 1,
            "shift": range(lanes) if lanes > 1 else 1, "ends": 1,
        })
        issue = Signal()
        issued = Signal(step)

        # --- the pipeline: read, add, write; it never stalls ---
        flights = [(issue, issued)]
        for cycle in range(PIPELINE_CYCLES):
            valid, payload = Signal(name=f"flight_valid_{cycle}"), Signal(step, name=f"flight_{cycle}")
            m.d.sync += [valid.eq(flights[-1][0]), payload.eq(flights[-1][1])]
            flights.append((valid, payload))
        m.d.comb += self.empty.eq(~Cat(*(valid for valid, _ in flights[1:])).any())

        bank_address = data.StructLayout({"word": max(1, words_log2 - 1), "row": row_bits})
        depth = self.params.rows << (words_log2 - 1)
        other = Signal(words_log2)  # the partner in a fold: its read address in the other bank
        reads, writes = [], []
        for number in range(2):
            m.submodules[f"bank_{number}"] = memory = Memory(shape=float_words(lanes), depth=max(2, depth), init=[])
            read, write = memory.read_port(), memory.write_port()
            mine = issued.word.xor() == number
            m.d.comb += [read.en.eq(1), read.addr.eq(Cat(Mux(mine, issued.word, other)[1:], issued.row))]
            reads.append(read)
            writes.append(write)
        assert bank_address.size == row_bits + words_log2 - 1

        adding = flights[READ_CYCLES][1]
        terms = Signal(float_words(lanes))
        m.d.sync += terms.eq(Mux(issued.from_terms, self.terms.p.data, 0))
        own, partner = Signal(float_words(lanes)), Signal(float_words(lanes))
        m.d.comb += [
            own.eq(Mux(adding.word.xor(), reads[1].data, reads[0].data)),
            partner.eq(Mux(adding.word.xor(), reads[0].data, reads[1].data)),
        ]
        sums = Signal(float_words(lanes))
        for n in range(lanes):
            m.submodules[f"add_{n}"] = adder = FloatAdd()
            shifted = own[n]
            for half in (1 << k for k in range(lanes.bit_length() - 1)):
                if n < half:
                    shifted = Mux(adding.shift == half, own[n + half], shifted)
            m.d.comb += [
                adder.enable.eq(1),
                adder.a.eq(Mux(adding.use_own, own[n], 0)),
                # Of the three at most one isn't zero.
                adder.b.eq(terms[n] | (partner[n] & adding.use_partner.replicate(32))
                           | (shifted & adding.use_shifted.replicate(32))),
                sums[n].eq(adder.o),
            ]
        done_valid, done = flights[-1]
        for number, write in enumerate(writes):
            m.d.comb += [write.addr.eq(Cat(done.word[1:], done.row)), write.data.eq(sums),
                         write.en.eq(done_valid & (done.word.xor() == number))]

        m.submodules.result = result = Memory(shape=32, depth=self.params.rows, init=[])
        write, read = result.write_port(), result.read_port(domain="comb")
        m.d.comb += [write.addr.eq(done.row), write.data.eq(sums[0]), write.en.eq(done_valid & done.ends),
                     read.addr.eq(self.row), self.sum.eq(read.data)]

        # --- what to issue ---
        same = [valid & (flight.row == self.terms.p.row) & (flight.word == self.terms.p.word)
                for valid, flight in flights[1:]]
        half = Signal(range(PARTIAL_SUMS // 2 + 1))  # elements that the running level leaves
        row, word = Signal(row_bits), Signal(words_log2)
        half_words = half >> (lanes.bit_length() - 1)
        within = half < lanes
        with m.FSM():
            with m.State("terms"):
                m.d.comb += [
                    self.terms.ready.eq(~Cat(*same).any()),
                    issue.eq(self.terms.valid & self.terms.ready),
                    issued.row.eq(self.terms.p.row), issued.word.eq(self.terms.p.word),
                    issued.from_terms.eq(1), issued.use_own.eq(~self.terms.p.opens),
                ]
                m.d.sync += [half.eq(PARTIAL_SUMS // 2), row.eq(0), word.eq(0)]
                with m.If(self.fold.valid & ~self.terms.valid & self.empty):
                    m.next = "fold"
            with m.State("fold"):
                first_level = half == PARTIAL_SUMS // 2
                m.d.comb += [
                    issue.eq(1), issued.row.eq(row), issued.word.eq(word), other.eq(word + half_words),
                    issued.shift.eq(half),
                    issued.use_own.eq(~first_level | (word < self.fold.p)),
                    issued.use_partner.eq(~within & (~first_level | (word + half_words < self.fold.p))),
                    issued.use_shifted.eq(within),
                    issued.ends.eq(half == 1),
                ]
                m.d.sync += word.eq(word + 1)
                with m.If(within | (word + 1 == half_words)):
                    m.d.sync += [word.eq(0), row.eq(row + 1)]
                    with m.If(row + 1 == self.rows):
                        m.d.sync += row.eq(0)
                        m.next = "wait"
            with m.State("wait"):
                with m.If(self.empty):
                    m.d.sync += half.eq(half >> 1)
                    m.next = "fold"
                    with m.If(half == 1):
                        m.next = "done"
            with m.State("done"):
                m.d.comb += self.fold.ready.eq(1)
                m.next = "terms"
        return m
