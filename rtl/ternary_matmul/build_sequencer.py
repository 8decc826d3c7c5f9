"""Takes TILE commands and has the tables of their slices built, as far ahead as banks and activations allow."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from rtl.contract.command_words import TILE
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes
from rtl.ternary_matmul.activation_memory import SLICE_BITS, ActivationMemory, buffer_base
from rtl.ternary_matmul.timing import EngineTiming

BANKS = 2
QUEUED_TILES = 4
STEPS_BITS = 16
TILE_SIZE = data.StructLayout({"steps": STEPS_BITS, "slices": SLICE_BITS})
BUILD_COMMAND = data.StructLayout({"activation": 1, "release": 1, "slices": SLICE_BITS})


class BuildSequencer(wiring.Component):
    """For every command, for every slice: read rows 0 … R − 1 and give row r to builder r mod B as its turn r div B.

    Parameters: P and ``rows_per_builder`` of the design; B = ``EngineTiming.builders``.

    Streams: command (in), TILE words. tile (out): their sizes, at once when a command is taken, for the sweep.

    Signals
    -------
    rows, ready_slices (in) : R, and slices that have arrived in each activation buffer.
    release (out)           : a buffer's last word is being read.
    read_* (out)            : port of the activation memory.
    load, turn, bank (out)  : with the data of a read: bit b of ``load`` is for builder b.
    built (out)             : in the next cycle beats of one more slice may be taken.
    swept (in)              : the last beat of a slice is taken.
    waiting (out)           : a build could start but for its activations.

    Timing: a slice takes ceil(R / B)·``turn_cycles``, the next follows without a gap. A build starts as soon as
    its slice is complete and its bank was swept, whatever the sweep is doing.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        self.timing = EngineTiming(params)
        self.turn_bits = bits_for(params.rows_per_builder - 1)
        self.address_bits = bits_for(2 * params.activation_words - 1)
        super().__init__({
            "command": In(stream.Signature(shapes.COMMAND_BITS)),
            "tile": Out(stream.Signature(TILE_SIZE)),
            "rows": In(bits_for(params.rows)), "ready_slices": In(data.ArrayLayout(SLICE_BITS, 2)), "release": Out(2),
            "read_enable": Out(1), "read_address": Out(self.address_bits),
            "load": Out(self.timing.builders), "turn": Out(self.turn_bits), "bank": Out(1),
            "built": Out(1), "swept": In(1), "waiting": Out(1),
        })

    def elaborate(self, platform):
        p, m, timing = self.params, Module(), self.timing

        # ---- commands: one ahead of the one that is being built, so that tiles follow without a gap
        ahead, ahead_valid = Signal(data.StructLayout({"build": BUILD_COMMAND, "size": TILE_SIZE})), Signal()
        current, current_valid = Signal(BUILD_COMMAND), Signal()
        next_slice = Signal(SLICE_BITS)
        begin, is_last_slice, take = Signal(), Signal(), Signal()
        m.submodules.tiles = tiles = SyncFIFO(width=TILE_SIZE.size, depth=QUEUED_TILES)
        word = data.View(shapes.command_layout(TILE), self.command.payload)
        m.d.comb += [
            self.command.ready.eq(~ahead_valid),
            is_last_slice.eq(next_slice + 1 == current.slices),
            take.eq(ahead_valid & (~current_valid | (begin & is_last_slice)) & tiles.w_rdy),
            tiles.w_en.eq(take), tiles.w_data.eq(ahead.size),
            self.tile.valid.eq(tiles.r_rdy), self.tile.payload.eq(tiles.r_data), tiles.r_en.eq(self.tile.ready),
        ]
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += [
                ahead_valid.eq(1),
                ahead.build.activation.eq(word.activation), ahead.build.release.eq(word.release),
                ahead.build.slices.eq(word.slices), ahead.size.slices.eq(word.slices), ahead.size.steps.eq(word.steps),
            ]
        with m.If(begin):
            m.d.sync += next_slice.eq(next_slice + 1)
            with m.If(is_last_slice):
                m.d.sync += [current_valid.eq(0), next_slice.eq(0)]
        with m.If(take):
            m.d.sync += [current.eq(ahead.build), current_valid.eq(1), ahead_valid.eq(0)]

        # ---- slices: begin one when its bank is free and its activations are there
        running, phase = Signal(), Signal(range(timing.turn_cycles))
        row, turn, bank = Signal(range(p.rows + 1)), Signal(self.turn_bits), Signal(init=1)
        address = Signal(self.address_bits)
        releases = Signal(2)  # buffer to release with the running slice's last read
        free_banks = Signal(range(BANKS + 1), init=BANKS)
        read = Signal()
        turn_end, slice_end, is_ready, could_begin = Signal(), Signal(), Signal(), Signal()
        rows_done = row + read == self.rows
        m.d.comb += [
            read.eq(running & (phase < timing.builders) & (row != self.rows)),
            turn_end.eq(running & (phase == timing.turn_cycles - 1)),
            slice_end.eq(turn_end & rows_done),
            is_ready.eq(Array(self.ready_slices)[current.activation] > next_slice),
            could_begin.eq(current_valid & (free_banks != 0) & (~running | slice_end)),
            begin.eq(could_begin & is_ready), self.waiting.eq(could_begin & ~is_ready),
        ]
        m.d.sync += free_banks.eq(free_banks + self.swept - begin)
        with m.If(running):
            m.d.sync += phase.eq(Mux(turn_end, 0, phase + 1))
            with m.If(turn_end):
                m.d.sync += turn.eq(turn + 1)
        with m.If(read):
            m.d.sync += [row.eq(row + 1), address.eq(address + 1)]
        with m.If(slice_end):
            m.d.sync += running.eq(0)
        with m.If(begin):
            m.d.sync += [running.eq(1), phase.eq(0), row.eq(0), turn.eq(0), bank.eq(~bank),
                         releases.eq(Mux(is_last_slice & current.release, 1 << current.activation, 0))]
            with m.If(next_slice == 0):
                m.d.sync += address.eq(buffer_base(p, current.activation))
        m.d.comb += [
            self.read_enable.eq(read), self.read_address.eq(address),
            self.release.eq(Mux(read & rows_done, releases, 0)),
        ]

        # ---- with the data of a read
        builder = Cat(read & (phase == b) for b in range(timing.builders))
        stages: list = [builder, turn, bank]
        for _ in range(ActivationMemory.read_latency):
            delayed = [Signal.like(stages[0], name="load_delayed"), Signal.like(turn), Signal.like(bank)]
            m.d.sync += [d.eq(s) for d, s in zip(delayed, stages)]
            stages = delayed
        m.d.comb += [self.load.eq(stages[0]), self.turn.eq(stages[1]), self.bank.eq(stages[2])]

        # ``built`` is seen one cycle later in the sweep's count of banks
        built = slice_end
        for _ in range(timing.built_delay - 1):
            built, before = Signal(name="built_delayed"), built
            m.d.sync += built.eq(before)
        m.d.comb += self.built.eq(built)
        return m
