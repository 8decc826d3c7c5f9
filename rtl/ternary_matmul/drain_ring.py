"""Finished tiles on their way to the vector unit."""

from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from rtl.contract.command_words import DRAIN_TILES
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for, round_up
from rtl.streams import shapes
from rtl.weight_buffer.uram_bank import UramBank

ROWS_A_BANK, WRITE_BITS = 2, 9
"""Five sums of 21 bits of two rows fill the width of three UltraRAMs, which can be written in parts of 9 bits."""
URAM_STEPS = 1024
"""From this depth on the ring is UltraRAM: three for two rows, instead of six block RAMs."""


class DrainRing(wiring.Component):
    """A ring of ``drain_steps`` words of Q accumulators for each row, and the queue of tiles that lie in it.

    A tile takes ``steps`` consecutive addresses (modulo drain_steps). Its place is reserved before its first result
    comes and free again when its reader says so.

    Parameters: P rows, Q outputs, ``accumulator_bits``, ``drain_steps`` of the design.

    Signals
    -------
    steps (in), room (out)  : whether a tile of ``steps`` could be reserved now, and queued.
    reserve, advance (in)   : a result's place is given out in a cycle with ``advance``: address ``step``; ``reserve``
                              marks a tile's first.
    write* (in)             : word of each row whose ``write`` bit is set, accumulator q of row r at bit
                              (r·Q + q)·accumulator_bits.
    finished (in)           : the oldest tile not yet offered is complete; its last word was written before this cycle.
    drain_release (in)      : the oldest tile's steps may be overwritten.

    Streams: tile (out): {base, steps} in order. drain_read: data follow ``DRAIN_READ_LATENCY`` cycles after ``enable``,
    one word a cycle.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        self.step_bits = bits_for(params.drain_steps - 1)
        self.word_bits = params.outputs * params.accumulator_bits
        super().__init__({
            "steps": In(bits_for(params.tile_steps)), "room": Out(1),
            "reserve": In(1), "advance": In(1), "step": Out(self.step_bits),
            "write": In(params.rows), "write_step": In(self.step_bits), "write_data": In(params.rows * self.word_bits),
            "finished": In(1),
            "tile": Out(stream.Signature(shapes.drain_tile(params))),
            "drain_read": In(shapes.drain_read(params)),
            "drain_release": In(shapes.DRAIN_RELEASE),
        })

    def elaborate(self, platform):
        p, m = self.params, Module()
        space = Signal(bits_for(p.drain_steps), init=p.drain_steps)
        m.submodules.tiles = tiles = SyncFIFO(width=self.step_bits + len(self.steps), depth=DRAIN_TILES)
        layout = data.StructLayout({"base": self.step_bits, "steps": len(self.steps)})
        queued = data.View(layout, tiles.r_data)
        m.d.comb += [
            self.room.eq((space >= self.steps) & tiles.w_rdy),
            data.View(layout, tiles.w_data).base.eq(self.step),
            data.View(layout, tiles.w_data).steps.eq(self.steps),
            tiles.w_en.eq(self.reserve),
        ]
        m.d.sync += space.eq(space - Mux(self.reserve, self.steps, 0)
                             + Mux(self.drain_release.valid, self.drain_release.steps, 0))
        with m.If(self.advance):
            m.d.sync += self.step.eq(Mux(self.step == p.drain_steps - 1, 0, self.step + 1))

        finished = Signal(range(DRAIN_TILES + 1))
        taken = self.tile.valid & self.tile.ready
        m.d.sync += finished.eq(finished + self.finished - taken)
        m.d.comb += [
            self.tile.valid.eq(finished != 0), self.tile.payload.base.eq(queued.base),
            self.tile.payload.steps.eq(queued.steps), tiles.r_en.eq(taken),
        ]

        read = self.drain_read
        row, pending = Signal.like(read.row), Signal()
        m.d.sync += [pending.eq(read.enable), row.eq(read.row)]
        word = Signal(self.word_bits, reset_less=True)
        words: list[Value] = []
        style = "ultra" if p.drain_steps >= URAM_STEPS else "block"
        lane_bits = round_up(self.word_bits, WRITE_BITS)
        for first in range(0, p.rows, ROWS_A_BANK):
            rows = range(first, min(first + ROWS_A_BANK, p.rows))
            bank = UramBank(lane_bits * len(rows), p.drain_steps, 1, style, write_lanes=len(rows))
            m.submodules[f"words_{first}"] = bank
            m.d.comb += [
                bank.write_enable.eq(self.write[rows.start:rows.stop]), bank.write_address.eq(self.write_step),
                *(bank.write_data.word_select(r - first, lane_bits).eq(
                    self.write_data.word_select(r, self.word_bits)) for r in rows),
                bank.read_enable.eq(read.enable & (read.row // ROWS_A_BANK == first // ROWS_A_BANK)),
                bank.read_address.eq(read.step),
            ]
            words += [bank.read_data.word_select(r - first, lane_bits)[:self.word_bits] for r in rows]
        with m.If(pending):
            m.d.sync += word.eq(Array(words)[row])
        m.d.comb += Value.cast(read.data).eq(word)
        return m
