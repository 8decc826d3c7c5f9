"""Σ w·v of a tile: partial sums of blocks of 16 positions added up, both halves of the weights joined."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.attention import tile_shapes
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, WEIGHT_HALF_BITS, WEIGHT_MAX, bits_for, round_up


class ValueAccumulator(wiring.Component):
    """acc[i][d] = Σ_blocks (dots_high[i][d]·2⁷ + dots_low[i][d]); row-vector i's halves are lanes 2i and 2i + 1 mod A.

    Two tiles fit: one is read while the next one comes in.

    Parameters
    ----------
    params : S = ``segments`` dims a transfer; A = ``row_vectors`` lanes; max_row_vectors, max_head_dim.

    Streams and ports
    -----------------
    value_sums (in) : per block rising (from 0), dim group rising, turn rising; ``last`` ends the tile.
    read            : {enable, turn, pair, dim_group}: word of S sums of row-vector turn·A/2 + pair of the oldest tile,
                      ``READ_LATENCY`` enabled cycles later (without ``enable`` everything stands still).
    filled (out)    : the oldest tile is complete and may be read.
    release (in)    : pulse: the oldest tile is no longer needed; not before the last word read stands in ``data``.

    Timing: ``interval_cycles``: a transfer a cycle (two where a block has only one), and one behind a tile's last.
    Number format: exact; a lane pair that nothing was written for holds nonsense.
    """

    READ_LATENCY = 2

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "value_sums": In(stream.Signature(tile_shapes.value_sums(params))),
            "read": In(sums_read(params)),
            "filled": Out(1),
            "release": In(1),
        })

    @staticmethod
    def interval_cycles(params: DesignParams, row_vectors: int, blocks: int, head_dim: int) -> int:
        """Cycles in which a tile comes in when nobody stalls."""
        turns = -(-2 * row_vectors // params.row_vectors)
        transfers = turns * round_up(head_dim, SEGMENT_BYTES) // params.segments
        return blocks * transfers * (2 if transfers == 1 else 1) + (transfers > 1)

    def elaborate(self, platform):
        m = Module()
        S, pairs = self.params.segments, self.params.row_vectors // 2
        dim_groups, depth = tile_shapes.dim_groups(self.params), self._depth
        word_layout = data.ArrayLayout(data.ArrayLayout(signed(tile_shapes.sum_bits(self.params)), S), pairs)
        block_layout = data.ArrayLayout(data.ArrayLayout(signed(_block_bits()), S), pairs)
        incoming = self.value_sums.p

        # One memory a tile, so that each needs one read port: for adding, or for whoever reads the finished tile.
        count, filling, reading = Signal(2), Signal(), Signal()
        taken = self.value_sums.valid & self.value_sums.ready
        address = Signal(range(depth))
        m.d.comb += address.eq(incoming.turn * dim_groups + incoming.dim_group)

        adding, is_first, add_address, ends = Signal(), Signal(), Signal.like(address), Signal()
        joined = Signal(block_layout)
        m.d.comb += self.value_sums.ready.eq(
            (count != 2) & ~(adding & ((add_address == address) | ends)))  # read only what is written
        m.d.sync += [adding.eq(taken), ends.eq(taken & incoming.last)]
        with m.If(taken):
            m.d.sync += [is_first.eq(incoming.block == 0), add_address.eq(address)]
            for n in range(pairs):
                for s in range(S):
                    high, low = (incoming.dots[2 * n + half][s].as_signed() for half in (0, 1))
                    m.d.sync += joined[n][s].eq(low + (high << WEIGHT_HALF_BITS))

        read_address = Signal.like(address)
        m.d.comb += read_address.eq(self.read.turn * dim_groups + self.read.dim_group)
        words = []
        total = Signal(word_layout)
        for n in range(2):
            memory = Memory(shape=word_layout, depth=depth, init=[])
            m.submodules[f"memory_{n}"] = memory
            read, write = memory.read_port(), memory.write_port()
            is_filling = (filling == n) & (count != 2)
            m.d.comb += [
                read.addr.eq(Mux(is_filling, address, read_address)),
                read.en.eq(Mux(is_filling, taken, self.read.enable)),
                write.addr.eq(add_address), write.en.eq(adding & (filling == n)), write.data.eq(total),
            ]
            words.append(read.data)
        for p in range(pairs):
            for s in range(S):
                before = Mux(filling, words[1][p][s], words[0][p][s])
                m.d.comb += total[p][s].eq(joined[p][s] + Mux(is_first, 0, before))

        done = adding & ends
        with m.If(done):
            m.d.sync += filling.eq(~filling)
        with m.If(self.release):
            m.d.sync += reading.eq(~reading)
        m.d.sync += count.eq(count + done - self.release)
        m.d.comb += self.filled.eq(count != 0)

        pair, from_buffer = Signal.like(self.read.pair), Signal()
        with m.If(self.read.enable):
            m.d.sync += [pair.eq(self.read.pair), from_buffer.eq(reading),
                         self.read.data.eq(Mux(from_buffer, words[1].as_value(), words[0].as_value())
                                           .word_select(pair, S * tile_shapes.sum_bits(self.params)))]
        return m

    @property
    def _depth(self) -> int:
        return tile_shapes.value_turns(self.params) * tile_shapes.dim_groups(self.params)


def sums_read(params: DesignParams) -> wiring.Signature:
    """Read port of the sums, as its user sees it."""
    return wiring.Signature({
        "enable": Out(1), "turn": Out(tile_shapes.TURN_BITS), "pair": Out(bits_for(params.row_vectors // 2 - 1)),
        "dim_group": Out(tile_shapes.dim_group_bits(params)),
        "data": In(data.ArrayLayout(signed(tile_shapes.sum_bits(params)), params.segments)),
    })


def _block_bits() -> int:
    """Signed width of the joined sum of one block."""
    return bits_for(127 * WEIGHT_MAX * SEGMENT_BYTES) + 1
