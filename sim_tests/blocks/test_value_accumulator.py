"""rtl/attention/value_accumulator.py: sums over blocks, two tiles at a time."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import tile_shapes
from rtl.attention.value_accumulator import ValueAccumulator
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, WEIGHT_MAX, round_up
from sim_tests.blocks.test_softmax_path import design
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations


class Reader(wiring.Component):
    """Reads finished tiles on request: {turn, pair, dim_group, last}; ``last`` releases the tile."""

    def __init__(self, params: DesignParams):
        self.params = params
        self.sums = ValueAccumulator(params)
        read = self.sums.read
        super().__init__({
            "value_sums": In(stream.Signature(tile_shapes.value_sums(params))),
            "request": In(stream.Signature(data.StructLayout({
                "turn": read.turn.shape(), "pair": read.pair.shape(), "dim_group": read.dim_group.shape(),
                "last": 1}))),
            "words": Out(stream.Signature(read.data.shape())),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.sums = sums = self.sums
        wiring.connect(m, wiring.flipped(self.value_sums), sums.value_sums)
        advance, last_1, releasing = Signal(), Signal(), Signal()
        valid = Signal(2)
        taken = self.request.valid & self.request.ready
        m.d.comb += [
            advance.eq(~valid[1] | self.words.ready), sums.read.enable.eq(advance),
            self.request.ready.eq(advance & sums.filled & ~(valid[0] & last_1)),
            *(getattr(sums.read, name).eq(self.request.p[name]) for name in ("turn", "pair", "dim_group")),
            self.words.valid.eq(valid[1]), self.words.p.eq(sums.read.data),
            sums.release.eq(releasing),
        ]
        m.d.comb += releasing.eq(advance & valid[0] & last_1)
        with m.If(advance):
            m.d.sync += [valid.eq(taken | valid[0] << 1), last_1.eq(self.request.p.last)]
        return m


CASES = [
    pytest.param(design(1, 2, 4, max_row_vectors=3, max_head_dim=36), [(3, 8, 36), (1, 1, 16), (2, 3, 17)], id="S1-A2"),
    pytest.param(design(4, 6, 4, max_row_vectors=7), [(7, 8, 100), (2, 8, 16), (6, 2, 64)], id="S4-A6"),
    pytest.param(design(16, 4, 4, max_row_vectors=5, max_head_dim=64),
                 [(1, 8, 16), (2, 8, 10), (5, 8, 64), (2, 1, 16)], id="S16-A4"),
]


@pytest.mark.parametrize("stall", [0.0, 0.3])
@simulations("params, shapes", CASES, cocotb=CASES[:1])
def test_value_accumulator(simulation: SimulationClass, params: DesignParams, shapes: list[tuple[int, int, int]],
                           stall: float):
    rng = np.random.default_rng(bench_seed())
    A, S = params.row_vectors, params.segments
    sent: dict[str, list] = {name: [] for name in ("turn", "block", "dim_group", "last", "dots")}
    asked: dict[str, list] = {name: [] for name in ("turn", "pair", "dim_group", "last")}
    wanted = []
    for tile in range(12):
        n, blocks, head_dim = shapes[tile % len(shapes)]
        turns, dim_groups = -(-2 * n // A), round_up(head_dim, SEGMENT_BYTES) // S
        edge = 127 * 127 * SEGMENT_BYTES
        dots = rng.integers(-edge, edge + 1, (blocks, dim_groups, turns, A, S))
        if tile < 2:
            dots[:] = edge * (1 if tile else -1)
        block, group, turn = (x.reshape(-1) for x in np.mgrid[:blocks, :dim_groups, :turns])
        last = np.zeros(len(block), np.int64)
        last[-1] = 1
        for name, values in zip(sent, (turn, block, group, last, dots.reshape(-1, A, S))):
            sent[name].append(values)
        sums = dots.sum(axis=0)  # [dim group, turn, A, S]
        joined = sums[:, :, 0::2] * 128 + sums[:, :, 1::2]
        assert np.abs(joined).max() <= 127 * WEIGHT_MAX * 128
        i, group = (x.reshape(-1) for x in np.mgrid[:n, :dim_groups])
        last = np.zeros(len(i), np.int64)
        last[-1] = 1
        turn, pair = i // (A // 2), i % (A // 2)
        for name, values in zip(asked, (turn, pair, group, last)):
            asked[name].append(values)
        wanted.append(joined[group, turn, pair])
    expected = np.concatenate(wanted)
    run = simulation(Reader(params)).simulator().run_streams(
        {"value_sums": {name: np.concatenate(parts) for name, parts in sent.items()},
         "request": {name: np.concatenate(parts) for name, parts in asked.items()}},
        {"words": len(expected)}, stall=stall, idle_cycles=20)
    np.testing.assert_array_equal(run.outputs["words"], expected, f"stall {stall}, seed {bench_seed()}")
    if not stall:  # two tiles fit, whoever reads
        two = len(sent["turn"][0]) + len(sent["turn"][1])
        interval = sum(ValueAccumulator.interval_cycles(params, *shape) for shape in shapes[:2])
        assert run.transfer_cycles["value_sums"][two] >= interval
        assert run.transfer_cycles["value_sums"][two - 1] in (interval - 1, interval - 2)  # less what follows the last
