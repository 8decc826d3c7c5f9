"""One row's partial sums, one word of Q accumulators a step."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.ternary_matmul.lane import sum_bits
from rtl.weight_buffer.uram_bank import UramBank


class Accumulator(wiring.Component):
    """``result[q] = (first ? start : memory[step][q]) + sums[q] + carries[q]``, modulo 2**accumulator_bits.

    Parameters: ``tile_steps`` words of Q accumulators of ``accumulator_bits``.

    Signals
    -------
    read, read_step (in)                : cycle 0 of a step: fetch its word.
    add, first, start, sums, carries    : cycle 1 (in).
    result (out), write, write_step (in): cycle 2: accumulator q at bit q·accumulator_bits, stored if ``write``.

    Timing: one step a cycle. A step's word may be fetched again ``revisit_cycles`` after its last fetch.

    Number format: two's complement; ``start`` takes off the offset that the lane's sums carry.
    """

    read_cycles, add_cycles = 1, 1
    revisit_cycles = read_cycles + add_cycles + 1

    def __init__(self, params: DesignParams):
        self.params = params
        bits = params.accumulator_bits
        step_bits = bits_for(params.tile_steps - 1)
        super().__init__({
            "read": In(1), "read_step": In(step_bits),
            "add": In(1), "first": In(1), "start": In(bits),
            "sums": In(params.outputs * sum_bits(params, params.tables)), "carries": In(params.outputs),
            "write": In(1), "write_step": In(step_bits), "result": Out(params.outputs * bits),
        })

    @property
    def module_name(self) -> str:
        return f"accumulator_q{self.params.outputs}_b{self.params.accumulator_bits}_d{self.params.tile_steps}"

    def elaborate(self, platform):
        p, m = self.params, Module()
        bits, width = p.accumulator_bits, sum_bits(p, p.tables)
        m.submodules.words = words = UramBank(p.outputs * bits, p.tile_steps, self.read_cycles, "block")
        m.d.comb += [
            words.read_enable.eq(self.read), words.read_address.eq(self.read_step),
            words.write_enable.eq(self.write), words.write_address.eq(self.write_step),
            words.write_data.eq(self.result),
        ]
        for q in range(p.outputs):
            total = Signal(bits, name=f"total_{q}", reset_less=True)
            with m.If(self.add):
                m.d.sync += total.eq(Mux(self.first, self.start, words.read_data.word_select(q, bits))
                                     + self.sums.word_select(q, width) + self.carries[q])
            m.d.comb += self.result.word_select(q, bits).eq(total)
        return m
