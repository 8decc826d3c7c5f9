"""Gains of the norms: two banks, filled from the weight stream."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.streams import shapes
from rtl.vector_unit.beat_words import BeatWords
from rtl.vector_unit.word_memory import READ_LATENCY, WordMemory, float_words
from rtl.weight_buffer.uram_bank import style_for

FLOAT_BITS = 32


class GainMemory(wiring.Component):
    """gain[bank][word]: W float32 gains a word, ``params.gain_words`` words a bank.

    A record's beats fill the bank that they name, from word 0; with its last word the bank is *full*. Beats for a bank
    that is full wait. ``release`` empties a bank (its contents stay readable until it is filled again).

    Streams
    -------
    gains (in) : beats of GAINS records, beat_bytes/4 float32 each, element order; gains beyond the bank are dropped.

    Ports: ``full`` one bit a bank; ``release`` one bit a bank, for one cycle; ``statistics`` and ``quantise`` read
    {enable, bank, word → data after READ_LATENCY enabled cycles}. ``quantise_claims``: quantise reads bank
    ``quantise.bank`` alone, as long as the signal is high; otherwise statistics does. The program sees to it that both
    don't want one bank at once (a norm's statistics are complete when its quantisation begins).

    Timing: max(beat_bytes/4 / W, 1) cycles a beat.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        words, shape = params.gain_words, float_words(params.vector_lanes)
        user = wiring.Signature({"enable": Out(1), "bank": Out(1), "word": Out(range(words)), "data": In(shape)})
        super().__init__({
            "gains": In(stream.Signature(shapes.beat(params))),
            "full": Out(2), "release": In(2),
            "statistics": In(user), "quantise": In(user), "quantise_claims": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        params = self.params
        lanes = params.vector_lanes
        m.submodules.to_words = to_words = BeatWords(8 * params.beat_bytes, FLOAT_BITS * lanes)

        # All beats of a record carry the bank's number; the bank is full when the last one has gone.
        bank, word, overflow = self.gains.p.bank, Signal(range(params.gain_words)), Signal()
        accept = Signal()
        m.d.comb += [
            accept.eq(~self.full.bit_select(bank, 1)),
            to_words.i.valid.eq(self.gains.valid & accept),
            self.gains.ready.eq(to_words.i.ready & accept),
            to_words.i.p.data.eq(self.gains.p.data),
            to_words.i.p.last.eq(self.gains.p.last),
            to_words.o.ready.eq(1),
        ]
        with m.If(self.full & self.release):
            m.d.sync += self.full.eq(self.full & ~self.release)
        with m.If(to_words.o.valid):
            with m.If(to_words.o.p.last):
                m.d.sync += [word.eq(0), overflow.eq(0),
                             self.full.eq((self.full & ~self.release) | (1 << bank))]
            with m.Elif(word == params.gain_words - 1):
                m.d.sync += overflow.eq(1)
            with m.Else():
                m.d.sync += word.eq(word + 1)
        reads = []
        for number in range(2):
            m.submodules[f"bank_{number}"] = memory = WordMemory(params.gain_words, float_words(lanes),
                                                                        style_for(params.gain_words))
            reads.append(memory.read.data)
            mine = Signal(name=f"quantise_has_{number}")
            m.d.comb += [
                mine.eq(self.quantise_claims & (self.quantise.bank == number)),
                memory.read.enable.eq(Mux(mine, self.quantise.enable, self.statistics.enable)),
                memory.read.address.eq(Mux(mine, self.quantise.word, self.statistics.word)),
                memory.write.enable.eq(to_words.o.valid & (bank == number) & ~overflow),
                memory.write.address.eq(word),
                memory.write.data.eq(to_words.o.p.data),
            ]
        for user in (self.statistics, self.quantise):
            chosen = user.bank
            for _ in range(READ_LATENCY):
                delayed = Signal()
                with m.If(user.enable):
                    m.d.sync += delayed.eq(chosen)
                chosen = delayed
            m.d.comb += user.data.eq(Mux(chosen, reads[1], reads[0]))
        return m
