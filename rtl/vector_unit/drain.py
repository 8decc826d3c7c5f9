"""DRAIN: what becomes of a tile's integer sums."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.contract.command_words import DRAIN, ActivationFunction, DrainMode
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, VECTOR_ALIGN, bits_for, round_up, signed_range
from rtl.streams import shapes
from rtl.vector_unit.head_path import HeadPath, rotary_depth
from rtl.vector_unit.kernel_ports import Kernels, assign
from rtl.vector_unit.ring_reader import RingReader
from rtl.vector_unit.statistics import statistics_word
from rtl.vector_unit.word_memory import Lookup, float_words, read_port, write_port

GATED_II = 2
"""A pair takes two words of the ring, which come over one port."""


class Drain(wiring.Component):
    """Per row r and output j of the tile, with scale = row scale[r]·weight scale:

        RESIDUAL          residual[r][first + j] += acc·scale
        QUERY, KEY, VALUE heads of float32, rotated, to int8 (HeadPath)
        GATED             vector[r][first + j] = act(gate·scale)·(up·scale2), of a pair of tiles

    Rows are the outer loop, outputs rise within a row.

    Streams
    -------
    command (in)             : DRAIN command words, one at a time.
    tile (in)                : tiles in the drain ring, oldest first; one a command (GATED: two).
    heads, head_scales (out) : QUERY, KEY, VALUE.
    statistics (out)         : every word written by RESIDUAL and GATED, if the command says so.

    Ports
    -----
    rows                     : R.
    drain_read, drain_release: the ring's read port; steps that are free again.
    scale                    : {activation, row → scale} in the same cycle, of the quantised rows.
    residual_read            : read port of the residual memory, for this block alone while it runs RESIDUAL.
    residual_write, vector_write : write ports, never refused; ``residual_pending``, ``vector_pending``: a word waits to
                               be written, so others must not write (independent of any ready).
    rotary                   : read port of the rotary memory.
    done, busy; waits_for_tile: the command's tile isn't finished.

    Timing: a row's scales, then ``words_cycles``, and the pipelines' latency. Number formats: the kernels'.
    """

    def __init__(self, params: DesignParams, kernels: Kernels):
        self.params, self.kernels = params, kernels
        row, word = shapes.row_bits(params), float_words(params.vector_lanes)
        super().__init__({
            "command": In(stream.Signature(shapes.COMMAND_BITS)), "done": Out(1), "busy": Out(1),
            "rows": In(bits_for(params.rows)),
            "tile": In(stream.Signature(shapes.drain_tile(params))),
            "drain_read": Out(shapes.drain_read(params)),
            "drain_release": Out(shapes.DRAIN_RELEASE),
            "scale": Out(wiring.Signature({"activation": Out(1), "row": Out(row), "scale": In(32)})),
            "residual_read": Out(read_port(params.residual_words, word)),
            "residual_write": Out(write_port(params.residual_words, word)),
            "vector_write": Out(write_port(params.vector_words, word)),
            "residual_pending": Out(1), "vector_pending": Out(1),
            "rotary": Out(read_port(rotary_depth(params), word)),
            "statistics": Out(stream.Signature(statistics_word(params))),
            "heads": Out(stream.Signature(shapes.head_segment(params))),
            "head_scales": Out(stream.Signature(shapes.head_scale(params))),
            "waits_for_tile": Out(1),
        })
        self.reader = RingReader(params)

    def words_cycles(self, rows: int, outputs: int, mode: DrainMode, head_dim: int = 0) -> int:
        """Cycles in which the tile's (the pair's) words pass, nobody stalling; a command adds a constant latency."""
        lanes = self.params.vector_lanes
        row = self.reader.row_cycles(outputs, paired=mode == DrainMode.GATED)
        if mode == DrainMode.GATED:
            row = max(row, GATED_II * outputs // lanes)
        elif mode != DrainMode.RESIDUAL:
            heads = outputs // round_up(head_dim, VECTOR_ALIGN)
            row = max(row, heads * round_up(head_dim, SEGMENT_BYTES) // lanes)
        return rows * row

    def elaborate(self, platform):
        m = Module()
        params, lanes = self.params, self.params.vector_lanes
        row_bits, acc_range = shapes.row_bits(params), signed_range(params.accumulator_bits)
        command = Signal(shapes.command_layout(DRAIN))
        is_gated, is_residual = command.mode == DrainMode.GATED, command.mode == DrainMode.RESIDUAL

        m.submodules.reader = reader = self.reader
        connect(m, flipped(self.tile), reader.tile)
        connect(m, reader.drain_read, flipped(self.drain_read))
        m.d.comb += [
            self.drain_release.eq(reader.drain_release),
            reader.rows.eq(self.rows), reader.request.p.outputs.eq(command.outputs),
            reader.request.p.paired.eq(is_gated),
        ]

        # --- the tile's scale for each row, computed when the tile is there: then its activations' scales are known ---
        m.submodules.row_scale = row_scale = self.kernels["row_scale"].pipeline(lanes=1, ii=1, tag_bits=row_bits + 1)
        m.submodules.scales = scales = Memory(shape=32, depth=2 * params.rows, init=[])
        scale_write, scale_read = scales.write_port(), scales.read_port(domain="comb")
        m.submodules.up_scales = up_scales = Memory(shape=32, depth=params.rows, init=[])
        up_write, up_read = up_scales.write_port(), up_scales.read_port(domain="comb")
        asked, of_up, scaling = Signal(bits_for(params.rows)), Signal(), Signal()
        known = Signal(bits_for(2 * params.rows))
        scale_last = (asked + 1 == self.rows) & (of_up | ~is_gated)
        value = row_scale.o.p.value
        value = value[0] if isinstance(value, data.View) else value
        m.d.comb += [
            self.scale.activation.eq(command.activation), self.scale.row.eq(asked),
            row_scale.i.valid.eq(scaling),
            *assign(row_scale.i.p, row_scale=self.scale.scale,
                    weight_scale=Mux(of_up, command.scale2, command.scale)),
            row_scale.i.p.tag.eq(Cat(asked[:row_bits], of_up)),
            row_scale.o.ready.eq(1),
            scale_write.addr.eq(row_scale.o.p.tag[:row_bits]), scale_write.data.eq(value),
            scale_write.en.eq(row_scale.o.valid & ~row_scale.o.p.tag[row_bits]),
            up_write.addr.eq(row_scale.o.p.tag[:row_bits]), up_write.data.eq(value),
            up_write.en.eq(row_scale.o.valid & row_scale.o.p.tag[row_bits]),
        ]
        m.d.sync += known.eq(known + row_scale.o.valid)

        # --- words of sums, with the word and the address that they go to ---
        word, row_base = Signal(16), Signal(16)
        running = Signal()
        sums = reader.words
        given = Signal()
        m.d.comb += given.eq(sums.valid & sums.ready)
        with m.If(given):
            m.d.sync += word.eq(word + 1)
            with m.If(sums.p.row_last):
                m.d.sync += [word.eq(0), row_base.eq(row_base + command.row_words)]
        place = data.StructLayout({"row": row_bits, "word": 16, "address": bits_for(
            max(params.residual_words, params.vector_words) - 1), "last": 1})
        here = Signal(place)
        m.d.comb += [here.row.eq(sums.p.row), here.word.eq(command.first_word + word),
                     here.address.eq(row_base + command.first_word + word), here.last.eq(sums.p.last)]

        # RESIDUAL: the residual's word beside the sums'
        m.submodules.lookup = lookup = Lookup(data.StructLayout({"sums": sums.p.gate.shape(), "place": place}))
        m.submodules.residual = residual = self.kernels["dequantise_residual"].pipeline(
            lanes=lanes, ii=1, tag_bits=place.size, ranges={"acc": acc_range})
        found = lookup.o.p
        m.d.comb += [
            lookup.i.valid.eq(running & is_residual & sums.valid),
            lookup.i.p.sums.eq(sums.p.gate), lookup.i.p.place.eq(here),
            self.residual_read.enable.eq(lookup.enable), self.residual_read.address.eq(here.address),
            residual.i.valid.eq(lookup.o.valid), lookup.o.ready.eq(residual.i.ready),
            *assign(residual.i.p, acc=found.sums, scale=scale_read.data, residual=self.residual_read.data),
            residual.i.p.tag.eq(found.place),
        ]

        # GATED: one kernel for all functions of the design
        functions = sorted(ActivationFunction[name.upper()] for name in params.activations)
        name = "_".join(["gated", *(f.name.lower() for f in functions)])
        if name not in self.kernels:
            raise ValueError(f"there is no kernel {name}: activations that a design holds together need one for all")
        m.submodules.gated = gated = self.kernels[name].pipeline(
            lanes=lanes, ii=GATED_II, tag_bits=place.size, ranges={"gate": acc_range, "up": acc_range})
        m.d.comb += [
            gated.i.valid.eq(running & is_gated & sums.valid),
            *assign(gated.i.p, gate=sums.p.gate, up=sums.p.up, gate_scale=scale_read.data, up_scale=up_read.data),
            gated.i.p.tag.eq(here),
        ]
        if len(functions) > 1:
            m.d.comb += gated.i.p.second.eq(command.function == functions[1])

        # Heads
        m.submodules.head_path = head_path = HeadPath(params, self.kernels)
        is_heads = ~is_gated & ~is_residual
        connect(m, head_path.rotary, flipped(self.rotary))
        connect(m, flipped(self.heads), head_path.heads)
        connect(m, flipped(self.head_scales), head_path.head_scales)
        m.d.comb += [
            head_path.sums.valid.eq(running & is_heads & sums.valid), head_path.sums.p.eq(sums.p),
            head_path.scale.eq(scale_read.data),
            head_path.first_head.eq(command.first_head), head_path.head_dim.eq(command.head_dim),
            head_path.kind.eq(Mux(command.mode == DrainMode.QUERY, shapes.HeadKind.QUERY,
                                  Mux(command.mode == DrainMode.KEY, shapes.HeadKind.KEY, shapes.HeadKind.VALUE))),
            scale_read.addr.eq(Mux(is_residual, found.place.row, Mux(is_gated, sums.p.row, head_path.row))),
            up_read.addr.eq(sums.p.row),
        ]
        m.d.comb += sums.ready.eq(running & Mux(is_residual, lookup.i.ready,
                                                Mux(is_gated, gated.i.ready, head_path.sums.ready)))

        # --- results to memory, and to the statistics ---
        written, result_valid = Signal(float_words(lanes)), Signal()
        at = Signal(place)
        taken = ~command.statistics | self.statistics.ready
        for pipeline, chosen in ((residual, is_residual), (gated, is_gated)):
            m.d.comb += pipeline.o.ready.eq(taken)
            with m.If(chosen):
                m.d.comb += [result_valid.eq(pipeline.o.valid), at.eq(pipeline.o.p.tag), written.eq(pipeline.o.p.value)]
        stored = Signal()
        m.d.comb += [
            self.statistics.valid.eq(result_valid & command.statistics),
            self.statistics.p.row.eq(at.row), self.statistics.p.word.eq(at.word), self.statistics.p.data.eq(written),
            self.statistics.p.has_norm.eq(command.has_norm), self.statistics.p.gain_bank.eq(command.gain_bank),
            stored.eq(result_valid & taken),
        ]
        for port, pending, enable in ((self.residual_write, self.residual_pending, is_residual),
                                      (self.vector_write, self.vector_pending, is_gated)):
            m.d.comb += [port.enable.eq(stored & enable), port.address.eq(at.address), port.data.eq(written),
                         pending.eq(result_valid & enable)]

        # --- the command ---
        reads_ring = Signal()
        m.d.comb += [self.busy.eq(~self.command.ready), reader.request.valid.eq(reads_ring)]
        with m.If(reader.request.valid & reader.request.ready):
            m.d.sync += reads_ring.eq(0)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.command.ready.eq(1)
                m.d.sync += [asked.eq(0), of_up.eq(0), known.eq(0), word.eq(0), row_base.eq(0)]
                with m.If(self.command.valid):
                    m.d.sync += [command.eq(self.command.p), reads_ring.eq(1)]
                    m.next = "tile"
            with m.State("tile"):
                m.d.comb += self.waits_for_tile.eq(~reader.tile_there)
                with m.If(reader.tile_there):
                    m.next = "scales"
            with m.State("scales"):
                m.d.comb += scaling.eq(1)
                with m.If(row_scale.i.ready):
                    m.d.sync += asked.eq(asked + 1)
                    with m.If(asked + 1 == self.rows):
                        m.d.sync += [asked.eq(0), of_up.eq(1)]
                    with m.If(scale_last):
                        m.next = "wait"
            with m.State("wait"):
                with m.If(known == Mux(is_gated, self.rows << 1, self.rows)):
                    m.next = "run"
            with m.State("run"):
                m.d.comb += running.eq(1)
                with m.If(Mux(is_heads, head_path.done, stored & at.last)):
                    m.d.comb += self.done.eq(1)
                    m.next = "idle"
        return m
