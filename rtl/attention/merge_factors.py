"""Running maximum and sum of the row-vectors, and the factors that merge a tile's output into theirs."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.attention import tile_shapes
from rtl.attention.queue import Queue
from rtl.contract.bitfields import float_bits
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import round_up

FACTORS = data.StructLayout({"alpha": 32, "cb": 32, "first": 1, "seen": 1, "started": 1, "inverse": 32})
"""o' = o·alpha + acc·cb (``first``: alpha is 1, and o counts as −0);
``seen``: in this tile; ``started``: in this or an earlier one; inverse: 1/l'."""

ONE, MINUS_ZERO = float_bits(1.0), float_bits(-0.0)
IN_FLIGHT = 32
STATE_CYCLES = 2
"""The softmax takes as long for a row-vector at least, so that operators are shared."""


class MergeFactors(wiring.Component):
    """(m, l) of each row-vector takes in a tile's; α, c·β and 1/l for whoever merges the outputs.

    A tile that a row-vector doesn't see leaves its m and l, with α = 1 and cb = −0: o·1 + 0·(−0) is o, bit for bit.

    Parameters
    ----------
    params  : max_row_vectors.
    kernels : name → kernel; uses ``merge_factors`` and ``reciprocal``.

    Streams
    -------
    tile    (in)  : the tiles in order (tile_shapes.tile: row_vectors, first_tile).
    states  (in)  : m, l, c of each row-vector of each tile.
    factors (out) : one for each state. Two tiles' fit, so that a tile's states never wait for its own sums.

    Timing: ``interval_cycles``: a row-vector in STATE_CYCLES; the next tile begins when this one is through, unless it
    is a first tile.
    """

    def __init__(self, params: DesignParams, kernels: Mapping[str, Any]):
        self.params, self.kernels = params, kernels
        self._kernel = kernels["merge_factors"].pipeline(
            lanes=1, ii=STATE_CYCLES, tag_bits=0, ranges={"l_tile": range(1 << tile_shapes.TOTAL_BITS)})
        super().__init__({
            "tile": In(stream.Signature(tile_shapes.tile(params))),
            "states": In(stream.Signature(tile_shapes.ROW_STATE)),
            "factors": Out(stream.Signature(FACTORS)),
        })

    def interval_cycles(self, row_vectors: int) -> int:
        """Cycles from a tile to the next one of the same group and KV head."""
        last_merged = (row_vectors - 1) * STATE_CYCLES + self._kernel.latency_cycles
        return round_up(last_merged + 1, STATE_CYCLES)

    def elaborate(self, platform):
        m = Module()
        count = self.params.max_row_vectors
        running = data.StructLayout({"maximum": 32, "total": 32, "started": 1})
        m.submodules.running = memory = Memory(shape=running, depth=count, init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        m.submodules.merge = kernel = self._kernel
        context_layout = data.StructLayout({
            "index": range(count), "first_tile": 1, "seen": 1, "started": 1, "total": 32})
        m.submodules.merge_contexts = contexts = Queue(context_layout, IN_FLIGHT)

        index, waiting = Signal(range(count)), Signal(range(IN_FLIGHT + 1))
        state, started = self.states.p, Signal()
        is_last = index == self.tile.p.row_vectors - 1
        may_start = (index != 0) | (waiting == 0) | self.tile.p.first_tile
        start = self.tile.valid & self.states.valid & contexts.i.ready & may_start
        issued, merged = start & kernel.i.ready, Signal()
        m.d.sync += waiting.eq(waiting + issued - merged)
        with m.If(issued):
            m.d.sync += index.eq(Mux(is_last, 0, index + 1))
        m.d.comb += [
            read.addr.eq(index), started.eq(read.data.started & ~self.tile.p.first_tile),
            self.states.ready.eq(issued), self.tile.ready.eq(issued & is_last),
            kernel.i.valid.eq(start), kernel.i.p.first[0].eq(~started),
            kernel.i.p.m[0].eq(read.data.maximum), kernel.i.p.m_tile[0].eq(state.maximum),
            kernel.i.p.l[0].eq(read.data.total), kernel.i.p.l_tile[0].eq(state.total), kernel.i.p.c[0].eq(state.scale),
            contexts.i.valid.eq(issued), contexts.i.p.index.eq(index), contexts.i.p.seen.eq(state.seen),
            contexts.i.p.first_tile.eq(self.tile.p.first_tile), contexts.i.p.started.eq(started),
            contexts.i.p.total.eq(read.data.total),
        ]

        # the new state, and l to 1/l
        m.submodules.invert = invert = self.kernels["reciprocal"].pipeline(lanes=1, ii=1, tag_bits=0)
        beside_layout = data.StructLayout({name: field.shape for name, field in FACTORS if name != "inverse"})
        m.submodules.invert_contexts = beside = Queue(beside_layout, IN_FLIGHT)
        context, result = contexts.o.p, kernel.o.p
        start = kernel.o.valid & beside.i.ready
        m.d.comb += [
            merged.eq(start & invert.i.ready), kernel.o.ready.eq(merged), contexts.o.ready.eq(merged),
            write.en.eq(merged & (context.seen | context.first_tile)), write.addr.eq(context.index),
            write.data.maximum.eq(result.m_new[0]), write.data.total.eq(result.l_new[0]),
            write.data.started.eq(context.seen),
            invert.i.valid.eq(start), invert.i.p.x[0].eq(Mux(context.seen, result.l_new[0], context.total)),
            beside.i.valid.eq(merged),
            beside.i.p.alpha.eq(Mux(context.seen & context.started, result.alpha[0], ONE)),
            beside.i.p.cb.eq(Mux(context.seen, result.cb[0], MINUS_ZERO)),
            beside.i.p.first.eq(context.seen & ~context.started), beside.i.p.seen.eq(context.seen),
            beside.i.p.started.eq(context.seen | context.started),
        ]
        m.submodules.factors = factors = Queue(FACTORS, 2 * count)
        m.d.comb += [
            factors.i.valid.eq(invert.o.valid), invert.o.ready.eq(factors.i.ready),
            beside.o.ready.eq(invert.o.valid & factors.i.ready), factors.i.p.inverse.eq(invert.o.p.value[0]),
            *(factors.i.p[name].eq(beside.o.p[name]) for name, _ in beside_layout),
        ]
        wiring.connect(m, factors.o, wiring.flipped(self.factors))
        return m
