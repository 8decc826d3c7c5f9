"""Attention without its softmax: walker, loader, beats and scales with the int8 array, against the goldens.

A stand-in for the softmax path plays given weights when a buffer is free.
"""

from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes, tile_shapes
from rtl.attention.attention_feed import AttentionFeed, outer_ports, path_ports
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES
from rtl.int8_dot.dot_engine import DotEngine
from sim_tests.blocks.attention_cases import Case, DesignSizes, ModelSizes, beat_ints, params
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

ENGINE_PORTS = ("operand_write", "beats", "results")
WEIGHT_PORTS = ("weights", "weights_ready", "weights_free")


class FeedBench(wiring.Component):
    """Feed and array; ``weight_play`` waits for a free buffer before a tile's first and gives a token with its last."""

    def __init__(self, p: DesignParams):
        self.p = p
        ports = {name: member for name, member in {**outer_ports(p), **path_ports(p)}.items()
                 if name not in ENGINE_PORTS + WEIGHT_PORTS}
        play = data.StructLayout({"write": tile_shapes.weight_write(p), "first": 1, "last": 1})
        super().__init__({**ports, "path_done": In(1), "weight_play": In(stream.Signature(play)),
                          "stalls": Out(16)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.feed = feed = AttentionFeed(self.p)
        m.submodules.engine = engine = DotEngine(self.p, kv_shapes.operand_words(self.p))
        for name in self.signature.members:
            if name in ("weight_play", "stalls"):
                continue
            if isinstance(getattr(self, name), wiring.PureInterface) or hasattr(getattr(self, name), "signature"):
                wiring.connect(m, getattr(wiring.flipped(self), name), getattr(feed, name))
            elif self.signature.members[name].flow is In:
                m.d.comb += getattr(feed, name).eq(getattr(self, name))
            else:
                m.d.comb += getattr(self, name).eq(getattr(feed, name))
        for name in ENGINE_PORTS:
            wiring.connect(m, getattr(feed, name), getattr(engine, name))

        play, free, started = self.weight_play, Signal(range(4)), Signal()
        may_go = started | (free != 0)
        ready_token = Signal()
        m.d.comb += [
            play.ready.eq(may_go & ~ready_token), feed.weights.valid.eq(play.valid & play.ready),
            feed.weights.p.eq(play.p.write), feed.weights_ready.valid.eq(ready_token), feed.weights_free.ready.eq(1),
        ]
        with m.If(play.valid & play.ready):
            m.d.sync += [started.eq(~play.p.last), ready_token.eq(play.p.last)]
        with m.If(ready_token & feed.weights_ready.ready):
            m.d.sync += ready_token.eq(0)
        m.d.sync += free.eq(free + feed.weights_free.valid - (play.valid & play.ready & play.p.first))
        with m.If(feed.events.waits_for_memory):
            m.d.sync += self.stalls.eq(self.stalls + 1)
        return m


def weights_of(case: Case) -> list[np.ndarray]:
    """Random weight bytes of each tile: int8 [2·row_vectors, blocks, 16]."""
    return [case.rng.integers(0, 128, (2 * t.group.rows * case.queries_per_kv, -(-t.positions // SEGMENT_BYTES),
                                       SEGMENT_BYTES)).astype(np.int8) for t in case.tiles]


def weight_fields(case: Case, weights: list[np.ndarray]) -> dict:
    lanes = case.params.row_vectors
    rows = []
    for tile in weights:
        count = tile.shape[0] * tile.shape[1]
        for n, (vector, block) in enumerate(np.ndindex(tile.shape[:2])):
            piece = int.from_bytes(tile[vector, block].tobytes(), "little")
            rows.append((vector // lanes, block, vector % lanes, piece, n == 0, n == count - 1))
    turn, block, lane, data, first, last = (np.array(c, object) for c in zip(*rows))
    return {"write": {"turn": turn, "block": block, "lane": lane, "mask": np.full(len(rows), 0xFFFF), "data": data},
            "first": first, "last": last}


def expected(case: Case, weights: list[np.ndarray]) -> dict:
    """What the softmax path must see, tile by tile."""
    lanes, S = case.params.row_vectors, case.params.segments
    out: dict[str, list] = {"scores": [], "value_sums": [], "key_scale": [], "value_scale": []}
    for tile, weight in zip(case.tiles, weights):
        keys, values, key_scales, value_scales = case.tile_arrays(tile)
        groups, group = -(-tile.positions // S), tile.group
        pad = groups * S - tile.positions
        rows = slice(group.first_row, group.first_row + group.rows)
        heads = slice(tile.kv_head * case.queries_per_kv, (tile.kv_head + 1) * case.queries_per_kv)
        queries = case.queries[rows, heads].reshape(-1, keys.shape[1]).astype(np.int32)
        out["key_scale"].append(np.pad(key_scales.astype(int), (0, pad), constant_values=-1).reshape(-1, S))
        out["value_scale"].append(np.pad(value_scales.astype(int), (0, pad), constant_values=-1).reshape(-1, S))
        turns = -(-len(queries) // lanes)
        dots = np.full((turns * lanes, groups * S), np.iinfo(np.int32).min, np.int64)
        dots[:len(queries), :tile.positions] = queries @ keys.T.astype(np.int32)
        out["scores"].append(dots.reshape(turns, lanes, groups, S).transpose(2, 0, 1, 3))
        blocks, value_turns = weight.shape[1], -(-2 * len(queries) // lanes)
        padded = np.zeros((blocks * SEGMENT_BYTES, values.shape[1]), np.int32)
        padded[:tile.positions] = values
        sums = np.full((value_turns * lanes, blocks, values.shape[1]), np.iinfo(np.int32).min, np.int64)
        weight = weight.astype(np.int32)
        weight[:, -1, tile.positions - (blocks - 1) * SEGMENT_BYTES:] = 0
        sums[:len(weight)] = np.einsum("vbj,bjd->vbd", weight, padded.reshape(blocks, SEGMENT_BYTES, -1))
        out["value_sums"].append(sums.reshape(value_turns, lanes, blocks, -1, S).transpose(2, 3, 0, 1, 4))
    return out


def compare(got: np.ndarray, wanted: np.ndarray, unknown: int) -> None:
    """Equal wherever ``wanted`` is known."""
    assert got.shape == wanted.shape
    known = wanted != unknown
    np.testing.assert_array_equal(got[known], wanted[known])


def run_case(case: Case, simulation: Simulation, stall) -> tuple:
    """Heads first, then the command; checks everything, returns the run and the simulator."""
    weights = weights_of(case)
    for weight, tile in zip(weights, case.tiles):  # as the softmax path does beyond a tile's end
        weight[:, -1, tile.positions - (weight.shape[1] - 1) * SEGMENT_BYTES:] = 0
    wanted = expected(case, weights)
    requests, memory = case.reads()
    simulator = simulation.simulator()
    case.set_pass_state(simulator)
    inputs = {
        **case.head_streams(), "command": np.array([case.attend_command(has_norm=1, gain_bank=1)], object),
        "list_data": np.array(case.list_words()), "weight_play": weight_fields(case, weights),
        **({"kv_data": beat_ints(memory)} if len(memory) else {}),
    }
    outputs = {
        "tile": len(case.tiles), "scales": sum(len(k) for k in wanted["key_scale"]),
        "scores": sum(d.shape[0] * d.shape[1] for d in wanted["scores"]),
        "value_sums": sum(int(np.prod(d.shape[:3])) for d in wanted["value_sums"]),
        "list_request": len(case.list_requests()),
        **({"kv_request": len(requests)} if requests else {}),
    }
    run = simulator.run_streams(inputs, outputs, stall=stall, idle_cycles=50)
    got = run.outputs

    assert list(zip(got["list_request"]["address"], got["list_request"]["words"])) == case.list_requests()
    if requests:
        assert list(zip(got["kv_request"]["beat"], got["kv_request"]["beats"])) == requests
    S = case.params.segments
    for name, values in {
            "row_vectors": [t.group.rows * case.queries_per_kv for t in case.tiles],
            "first_row": [t.group.first_row for t in case.tiles], "rows": [t.group.rows for t in case.tiles],
            "kv_head": [t.kv_head for t in case.tiles], "difference": [t.difference for t in case.tiles],
            "groups_of_positions": [-(-t.positions // S) for t in case.tiles],
            "first_tile": [t.first_tile for t in case.tiles], "last_tile": [t.last_tile for t in case.tiles],
            "last_of_command": [t.last_of_command for t in case.tiles],
            "queries_per_kv": [case.queries_per_kv] * len(case.tiles), "head_dim": [case.head_dim] * len(case.tiles),
            "factor": [int(case.factor.view(np.uint32))] * len(case.tiles),
            "row_words": [case.row_words] * len(case.tiles),
            "has_norm": [1] * len(case.tiles), "gain_bank": [1] * len(case.tiles)}.items():
        np.testing.assert_array_equal(got["tile"][name], values, err_msg=name)
    compare(got["scales"]["key"], np.concatenate(wanted["key_scale"]), -1)
    compare(got["scales"]["value"], np.concatenate(wanted["value_scale"]), -1)

    unknown = np.iinfo(np.int32).min
    scores = [(g, t) for d in wanted["scores"] for g, t in np.ndindex(d.shape[:2])]
    np.testing.assert_array_equal(np.stack([got["scores"]["group"], got["scores"]["turn"]], axis=1), scores)
    dots = got["scores"]["dots"].astype(np.uint32).view(np.int32).astype(np.int64)
    compare(dots, np.concatenate([d.reshape(-1, *d.shape[2:]) for d in wanted["scores"]]), unknown)

    places = [(b, d, t, (b, d, t) == tuple(n - 1 for n in w.shape[:3]))
              for w in wanted["value_sums"] for b, d, t in np.ndindex(w.shape[:3])]
    sums = got["value_sums"]
    np.testing.assert_array_equal(np.stack([sums[n] for n in ("block", "dim_group", "turn", "last")], axis=1), places)
    dots = sums["dots"].astype(np.uint32).view(np.int32).astype(np.int64)
    compare(dots, np.concatenate([w.reshape(-1, *w.shape[3:]) for w in wanted["value_sums"]]), unknown)
    return run, simulator


# (ports, port_bytes, A, P, W), (KV heads, queries per KV head, head_dim), [(rows, past) …]
CASES = [
    ((1, 16, 2, 3, 2), (2, 1, 18), [(3, 0)]),
    ((1, 16, 2, 3, 2), (1, 3, 64), [(1, 127), (2, 5)]),
    ((2, 16, 6, 4, 4), (2, 2, 100), [(2, 127), (1, 300), (1, 0)]),
    ((4, 16, 4, 16, 4), (3, 1, 96), [(9, 120), (1, 128), (3, 5), (1, 0)]),
    ((4, 16, 4, 16, 4), (2, 4, 32), [(1, 300), (7, 249)]),
    ((4, 64, 8, 1, 8), (2, 2, 64), [(1, 129)]),
]


@cache
def compiled(simulation: SimulationClass, design: DesignSizes) -> Simulation:
    return simulation(FeedBench(params(*design)))


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("design, model, sizes", CASES, cocotb=CASES[:1])
def test_feed(simulation: SimulationClass, design: DesignSizes, model: ModelSizes, sizes: list, stall: float):
    case = Case(params(*design), *model, sizes, seed=bench_seed(), shared_lists=model[0] == 3)
    run_case(case, compiled(simulation, design), stall)
