"""Everything element-wise: drains, statistics, quantisation, gathers, and the memories that they share."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.contract.design_params import DesignParams
from rtl.streams import shapes
from rtl.vector_unit.drain import Drain
from rtl.vector_unit.gain_memory import GainMemory
from rtl.vector_unit.gather import Gather
from rtl.vector_unit.head_path import rotary_depth
from rtl.vector_unit.kernel_ports import Kernels
from rtl.vector_unit.quantise import Quantise
from rtl.vector_unit.statistics import Statistics, statistics_word
from rtl.vector_unit.word_memory import WordMemory, float_words

EVENTS = data.StructLayout({"drain_busy": 1, "quantise_busy": 1, "gather_busy": 1,
                            "drain_waits_for_tile": 1, "quantise_folds": 1, "quantise_waits_for_room": 1})
UNITS = ("drain", "quantise", "gather")


class VectorUnit(wiring.Component):
    """DRAIN, QUANTISE and GATHER commands, each by an engine of its own that runs beside the others.

        ring ─ Drain ──┬─ residual memory ─┬─ Quantise ── activation slices, head operands
        attention ─────┼─ vector memory ───┘      │
        tables ─ Gather┴─ Statistics (Σx², absmax of what is written; gains) ── inverse, scale of each row

    Parameters
    ----------
    params  : memories hold ``residual_words``, ``vector_words`` and two banks of ``gain_words`` words of W float32.
    kernels : name → compiled kernel (row_scale, dequantise_residual, norm_statistics, norm_finalise, norm_quantise,
              dequantise_rotate, head_scale, quantise_int8 and gated_<name>[_<name>] of ``params.activations``).

    Streams
    -------
    drain_command, quantise_command, gather_command (in) : command words of 256 bits; ``…_done`` pulses once a finished
                      command, in order; ``…_busy`` from a command's acceptance to its end.
    tile (in), ``drain_read``, ``drain_release`` : the engine's drain ring (RingReader).
    activation (out), ``activation_free`` ; head_operands, row_scales (out) : Quantise.
    heads, head_scales (out) : Drain of query, key and value heads.
    words (in)      : attention's output for the vector memory: word of row r at r·row_words + word; with
                      ``statistics`` they count in the norm's sums. Taken for good when taken.
    gains (in)      : GAINS records.
    table_request (out), table_data (in) : Gather.

    ``pass_state``: rows, token, position. ``events``: what the counters count.

    What the program must see to: a vector is complete (its writers' commands done) before QUANTISE of it starts;
    RESIDUAL drains and GATHER don't run while QUANTISE reads the residual; a row's statistics serve one norm at a time.
    """

    def __init__(self, params: DesignParams, kernels: Kernels):
        self.params, self.kernels = params, kernels
        commands = {f"{unit}_{part}": shape for unit in UNITS for part, shape in (
            ("command", In(stream.Signature(shapes.COMMAND_BITS))), ("done", Out(1)), ("busy", Out(1)))}
        super().__init__({
            **commands,
            "pass_state": In(shapes.pass_state(params)),
            "tile": In(stream.Signature(shapes.drain_tile(params))),
            "drain_read": Out(shapes.drain_read(params)),
            "drain_release": Out(shapes.DRAIN_RELEASE),
            "activation": Out(stream.Signature(shapes.activation_slice(params))), "activation_free": In(2),
            "head_operands": Out(stream.Signature(shapes.head_operand(params))),
            "row_scales": Out(stream.Signature(shapes.row_scale(params))),
            "heads": Out(stream.Signature(shapes.head_segment(params))),
            "head_scales": Out(stream.Signature(shapes.head_scale(params))),
            "words": In(stream.Signature(shapes.vector_word(params))),
            "gains": In(stream.Signature(shapes.beat(params))),
            "table_request": Out(stream.Signature(shapes.STRIPED_REQUEST)),
            "table_data": In(stream.Signature(8 * params.beat_bytes)),
            "events": Out(EVENTS),
        })

    def elaborate(self, platform):
        m = Module()
        params = self.params
        word = float_words(params.vector_lanes)
        m.submodules.drain = drain = Drain(params, self.kernels)
        m.submodules.quantise = quantise = Quantise(params, self.kernels)
        m.submodules.gather = gather = Gather(params)
        m.submodules.statistics = statistics = Statistics(params, self.kernels)
        m.submodules.gain_memory = gain_memory = GainMemory(params)
        m.submodules.residual = residual = WordMemory(params.residual_words, word, "ultra")
        m.submodules.vector = vector = WordMemory(params.vector_words, word, "ultra")
        m.submodules.rotary = rotary = WordMemory(rotary_depth(params), word)

        # --- commands and the outside ---
        engines: dict[str, Any] = {"drain": drain, "quantise": quantise, "gather": gather}
        for unit, engine in engines.items():
            connect(m, flipped(getattr(self, f"{unit}_command")), engine.command)
            m.d.comb += [getattr(self, f"{unit}_done").eq(engine.done), getattr(self, f"{unit}_busy").eq(engine.busy),
                         self.events[f"{unit}_busy"].eq(engine.busy), engine.rows.eq(self.pass_state.rows)]
        for engine, names in ((drain, ("tile", "drain_read", "heads", "head_scales")),
                              (quantise, ("activation", "head_operands", "row_scales")),
                              (gather, ("table_request", "table_data")), (gain_memory, ("gains",))):
            for name in names:
                connect(m, flipped(getattr(self, name)), getattr(engine, name))
        m.d.comb += [
            self.drain_release.eq(drain.drain_release), quantise.activation_free.eq(self.activation_free),
            gather.token.eq(self.pass_state.token), gather.position.eq(self.pass_state.position),
            statistics.rows.eq(self.pass_state.rows),
            self.events.drain_waits_for_tile.eq(drain.waits_for_tile),
            self.events.quantise_folds.eq(quantise.folds),
            self.events.quantise_waits_for_room.eq(quantise.waits_for_room),
        ]

        # --- gains and statistics ---
        connect(m, statistics.gains, gain_memory.statistics)
        connect(m, quantise.gains, gain_memory.quantise)
        connect(m, quantise.fold, statistics.fold)
        connect(m, drain.scale, quantise.scale)
        m.d.comb += [
            gain_memory.quantise_claims.eq(quantise.gain_claim), gain_memory.release.eq(quantise.gain_release),
            statistics.gain_full.eq(gain_memory.full), quantise.gain_full.eq(gain_memory.full),
            statistics.row.eq(quantise.row), quantise.sum_squares.eq(statistics.sum_squares),
            quantise.absmax.eq(statistics.absmax),
        ]

        # --- attention's words, with their address ---
        place = data.StructLayout({"word": statistics_word(params), "counts": 1, "address": range(params.vector_words)})
        placed, placed_valid, placed_ready = Signal(place), Signal(), Signal()
        product = self.words.p.row * self.words.p.row_words
        m.d.comb += self.words.ready.eq(~placed_valid | placed_ready)
        with m.If(self.words.ready):
            m.d.sync += [
                placed_valid.eq(self.words.valid), placed.counts.eq(self.words.p.statistics),
                placed.address.eq(product + self.words.p.word),
                *(placed.word[name].eq(self.words.p[name]) for name, _ in statistics_word(params)),
            ]
        attention = stream.Signature(statistics_word(params)).create()
        to_vector = ~drain.vector_pending
        m.d.comb += [
            attention.valid.eq(placed_valid & placed.counts & to_vector), attention.p.eq(placed.word),
            placed_ready.eq(to_vector & (~placed.counts | attention.ready)),
        ]

        # --- statistics: the drain before attention before the gather ---
        blocked = Const(0)
        for source in (drain.statistics, attention, gather.statistics):
            m.d.comb += source.ready.eq(statistics.words.ready & ~blocked)
            with m.If(source.valid & ~blocked):
                m.d.comb += [statistics.words.valid.eq(1), statistics.words.p.eq(source.p)]
            blocked = blocked | source.valid

        # --- memories ---
        reads_residual = Signal()
        m.d.comb += [
            reads_residual.eq(quantise.busy & ~quantise.read.vector),
            residual.read.enable.eq(Mux(reads_residual, quantise.read.enable, drain.residual_read.enable)),
            residual.read.address.eq(Mux(reads_residual, quantise.read.address, drain.residual_read.address)),
            vector.read.enable.eq(quantise.read.enable), vector.read.address.eq(quantise.read.address),
            drain.residual_read.data.eq(residual.read.data),
            quantise.read.data.eq(Mux(quantise.read.vector, vector.read.data, residual.read.data)),
            gather.residual_taken.eq(drain.residual_pending),
        ]
        _write(m, residual.write, drain.residual_write, gather.residual_write)
        attention_write = vector.write.signature.create()
        m.d.comb += [attention_write.enable.eq(placed_valid & placed_ready),
                     attention_write.address.eq(placed.address), attention_write.data.eq(placed.word.data)]
        _write(m, vector.write, drain.vector_write, attention_write)
        connect(m, drain.rotary, rotary.read)
        connect(m, gather.rotary_write, rotary.write)
        return m


def _write(m: Module, port, first, second) -> None:
    """Two writers of one port; ``second`` holds back while ``first`` writes."""
    m.d.comb += [
        port.enable.eq(first.enable | second.enable),
        port.address.eq(Mux(first.enable, first.address, second.address)),
        port.data.eq(Mux(first.enable, first.data, second.data)),
    ]
