"""rtl/attention/softmax_path.py against its golden: values, stalls, cycles.

The int8 array and the query buffer are played by the bench: dots are random, value sums are computed from the golden's
weights. (The weights that the block writes are compared too.)
"""

from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hls_py.golden.attention.softmax import RunningOutput, tile_softmax, tile_visibility
from hls_py.kernels.attention import query_scale
from hls_py.kernels.registry import KERNELS
from rtl.attention.softmax_path import SoftmaxPath
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import CANONICAL_NAN, SEGMENT_BYTES, TILE_POSITIONS, VECTOR_ALIGN, round_up
from rtl.streams.shapes import row_bits
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.fast import VerilatedLibrary
from sim_tests.harness.simulation import Simulator, StreamRun
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

BFLOAT16_NAN = CANONICAL_NAN >> 16


def design(segments: int, row_vectors: int, vector_lanes: int, rows: int = 4, max_row_vectors: int = 16,
           max_head_dim: int = 100) -> DesignParams:
    ports = max(1, segments // 4)
    return DesignParams(rows=rows, row_vectors=row_vectors, vector_lanes=vector_lanes, ports=ports,
                        port_bytes=SEGMENT_BYTES * segments // ports, tables=4, outputs=1, tile_steps=512,
                        max_row_vectors=max_row_vectors, max_head_dim=max_head_dim)


class Bench(wiring.Component):
    """The path, a query scale memory, and counters of its pulses."""

    def __init__(self, params: DesignParams):
        self.path = SoftmaxPath(params, KERNELS)
        self.address_bits = row_bits(params) + 8
        members = dict(self.path.signature.members)
        for name in ("query_scale_address", "query_scale_data", "tile_done", "done"):
            del members[name]
        super().__init__(wiring.Signature({
            **members, "query_write": In(data.StructLayout({"enable": 1, "address": self.address_bits, "scale": 16})),
            "tiles_done": Out(16), "commands_done": Out(16),
        }))

    def elaborate(self, platform):
        m = Module()
        m.submodules.path = path = self.path
        m.submodules.query_scales = memory = Memory(shape=16, depth=1 << self.address_bits, init=[])
        read, write = memory.read_port(), memory.write_port()
        address = Signal(self.address_bits)
        m.d.comb += [
            address.eq(Cat(path.query_scale_address.head, path.query_scale_address.row)),
            read.addr.eq(address), path.query_scale_data.eq(read.data),
            write.addr.eq(self.query_write.address), write.data.eq(self.query_write.scale),
            write.en.eq(self.query_write.enable),
        ]
        for name in self.path.signature.members:
            if name in self.signature.members:
                member = getattr(self, name)
                wiring.connect(m, wiring.flipped(member), getattr(path, name))
        m.d.sync += [self.tiles_done.eq(self.tiles_done + path.tile_done),
                     self.commands_done.eq(self.commands_done + path.done)]
        return m


@dataclass
class Group:
    """One group and KV head: rows ``first_row`` … of the pass behind ``past`` positions."""

    rows: int
    past: int
    first_row: int = 0
    queries_per_kv: int = 1
    kv_head: int = 0
    head_dim: int = 18
    last_of_command: bool = False
    dots: str = "random"
    scored: int = TILE_POSITIONS
    """At most so many positions of a tile are scored (a block list may end a tile early)."""
    last_difference: int | None = None
    """Overrides the last tile's difference: a tile that only some rows see, or none."""

    @property
    def row_vectors(self) -> int:
        return self.rows * self.queries_per_kv


@dataclass
class Case:
    """Groups in order and the rows' visibility; builds stimulus and expected results."""

    params: DesignParams
    groups: list[Group]
    visible: list[int]
    seed: int
    query_scales: np.ndarray = field(init=False)
    inputs: dict = field(init=False)
    expected: dict = field(init=False)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.query_scales = bfloat16(self.rng.uniform(1e-3, 2e-2, (self.params.rows, 256)))
        names = {"tile": 0, "scales": 0, "scores": 0, "value_sums": 0, "weights": 0, "words": 0}
        self._parts: dict[str, list[dict]] = {name: [] for name in names}
        for group in self.groups:
            self._add_group(group)
        joined = {name: {key: np.concatenate([np.asarray(part[key]) for part in parts]) for key in parts[0]}
                  for name, parts in self._parts.items()}
        self.tiles = len(self._parts["tile"])
        tokens = np.zeros(self.tiles, np.int64)
        self.inputs = {name: joined[name] for name in ("tile", "scales", "scores", "value_sums")}
        self.inputs["weights_free"] = tokens
        self.expected = {"weights": joined["weights"], "words": joined["words"], "weights_ready": tokens}

    def _add_group(self, group: Group) -> None:
        params, rng = self.params, self.rng
        S, n = params.segments, group.row_vectors
        rows = group.first_row + np.arange(n) // group.queries_per_kv
        heads = group.kv_head * group.queries_per_kv + np.arange(n) % group.queries_per_kv
        factor = np.float32(1.4427 / np.sqrt(group.head_dim))
        scaled = query_scale(self.query_scales[rows, heads], factor)
        dims = round_up(group.head_dim, SEGMENT_BYTES)
        running = RunningOutput(n, dims)
        newest = (group.past + group.rows - 1) // TILE_POSITIONS
        for tile in range(newest, -1, -1):
            start = tile * TILE_POSITIONS
            difference = max(start - group.past, -TILE_POSITIONS)
            scored = -(-min(group.scored, group.past + group.rows - start) // S) * S
            if tile == 0 and group.last_difference is not None:
                difference = group.last_difference
            visible = tile_visibility(group.first_row, group.rows, difference, self.visible, group.queries_per_kv)
            visible[:, scored:] = False
            dots = random_dots(group, n, dims, rng)
            key_bits, value_bits = (bfloat16_bits(rng.uniform(0, 5e-2, TILE_POSITIONS)) for _ in range(2))
            key_bits[rng.random(TILE_POSITIONS) < 0.1] = 0
            unseen = ~visible.any(axis=0)
            key_bits[unseen] = value_bits[unseen] = BFLOAT16_NAN
            softmax = tile_softmax(dots, visible, scaled, from_bfloat16(key_bits), from_bfloat16(value_bits))
            values = rng.integers(-127, 128, (TILE_POSITIONS, dims))
            running.merge(softmax, softmax.weights @ values)
            count = 1
            self._parts["tile"].append({key: np.full(count, value) for key, value in dict(
                row_vectors=n, first_row=group.first_row, rows=group.rows, queries_per_kv=group.queries_per_kv,
                kv_head=group.kv_head, head_dim=group.head_dim, difference=difference, groups_of_positions=scored // S,
                first_tile=int(tile == newest), last_tile=int(tile == 0), factor=int(factor.view(np.uint32)),
                row_words=77, statistics=1, has_norm=int(group.kv_head & 1), gain_bank=int(group.rows & 1),
                last_of_command=int(group.last_of_command and tile == 0)).items()})
            self._parts["scales"].append({"key": key_bits[:scored].reshape(-1, S),
                                          "value": value_bits[:scored].reshape(-1, S)})
            self._add_scores(dots[:, :scored])
            self._add_weights(softmax, scored, values)
        self._add_words(group, rows, heads, running.value())

    def _add_scores(self, dots: np.ndarray) -> None:
        A, S = self.params.row_vectors, self.params.segments
        n, positions = dots.shape
        turns, groups = -(-n // A), positions // S
        lanes = self.rng.integers(-2**31, 2**31, (turns * A, positions))
        lanes[:n] = dots
        ordered = lanes.reshape(turns, A, groups, S).transpose(2, 0, 1, 3).reshape(groups * turns, A, S)
        group, turn = (x.reshape(-1) for x in np.mgrid[:groups, :turns])
        self._parts["scores"].append({"turn": turn, "group": group, "dots": ordered})

    def _add_weights(self, softmax, scored: int, values: np.ndarray) -> None:
        """Expected writes, and the sums that the array makes of them."""
        A, S = self.params.row_vectors, self.params.segments
        n, dims = len(softmax.weights), values.shape[1]
        blocks = -(-scored // SEGMENT_BYTES)
        halves = np.stack(softmax.halves, axis=1).reshape(2 * n, TILE_POSITIONS)  # row-vectors of the array
        shifts = np.arange(SEGMENT_BYTES, dtype=object) * 8
        i, block, half = (x.reshape(-1) for x in np.mgrid[:n, :blocks, :2])
        place = 2 * i + half
        block_bytes = halves.reshape(2 * n, -1, SEGMENT_BYTES)
        self._parts["weights"].append({
            "turn": place // A, "block": block, "lane": place % A, "mask": np.full(len(i), 0xFFFF),
            "data": (block_bytes[place, block].astype(object) << shifts).sum(axis=1)})

        turns, dim_groups = -(-2 * n // A), dims // S
        sums = np.einsum("ibp,bpd->bid", block_bytes[:, :blocks].astype(np.int64),
                         values.reshape(-1, SEGMENT_BYTES, dims)[:blocks])
        lanes = self.rng.integers(-2**31, 2**31, (blocks, turns * A, dims))
        lanes[:, :2 * n] = sums
        ordered = lanes.reshape(blocks, turns, A, dim_groups, S).transpose(0, 3, 1, 2, 4).reshape(-1, A, S)
        block, dim_group, turn = (x.reshape(-1) for x in np.mgrid[:blocks, :dim_groups, :turns])
        last = np.zeros(len(turn), np.int64)
        last[-1] = 1
        self._parts["value_sums"].append({"turn": turn, "block": block, "dim_group": dim_group, "last": last,
                                          "dots": ordered})

    def _add_words(self, group: Group, rows: np.ndarray, heads: np.ndarray, value: np.ndarray) -> None:
        W = self.params.vector_lanes
        n, padded = len(rows), round_up(group.head_dim, VECTOR_ALIGN)
        elements = np.zeros((n, padded), np.float32)
        elements[:, :group.head_dim] = value[:, :group.head_dim]
        words = padded // W
        i, word = (x.reshape(-1) for x in np.mgrid[:n, :words])
        last = np.zeros(len(i), np.int64)
        last[-1] = group.last_of_command
        self._parts["words"].append({
            "row": rows[i], "word": heads[i] * words + word, "data": elements.view(np.uint32).reshape(-1, W),
            "statistics": np.ones(len(i)).astype(int), "has_norm": np.full(len(i), group.kv_head & 1),
            "gain_bank": np.full(len(i), group.rows & 1), "last": last})

    def run(self, simulator: Simulator, stall=0.0) -> StreamRun:
        """Run it on a ``Bench`` and compare everything."""
        visible = np.zeros(self.params.rows, np.int64)
        visible[:len(self.visible)] = self.visible
        simulator.set("pass_state__visible", visible)
        heads = max(g.queries_per_kv * (g.kv_head + 1) for g in self.groups)
        for row in range(self.params.rows):
            for head in range(heads):
                scale = int(self.query_scales[row, head].view(np.uint32)) >> 16
                simulator.set("query_write", {"enable": 1, "address": row * 256 + head, "scale": scale})
                simulator.step()
        simulator.set("query_write", {"enable": 0, "address": 0, "scale": 0})
        before = simulator.get("tiles_done"), simulator.get("commands_done")
        run = simulator.run_streams(
            self.inputs, {name: len(next(iter(x.values())) if isinstance(x, dict) else x)
                          for name, x in self.expected.items()},
            stall=stall, seed=self.seed, idle_cycles=200)
        where = f"stall {stall}, seed {self.seed}"
        for name in ("weights", "words"):
            for key, want in self.expected[name].items():
                np.testing.assert_array_equal(run.outputs[name][key], want, f"{name}.{key} ({where})")
        assert simulator.get("tiles_done") - before[0] == self.tiles, where
        assert simulator.get("commands_done") - before[1] == sum(g.last_of_command for g in self.groups), where
        return run


def random_dots(group: Group, n: int, dims: int, rng: np.random.Generator) -> np.ndarray:
    """[n, 128] products q·k."""
    top = 127 * 127 * dims
    if group.dots == "equal":
        return np.full((n, TILE_POSITIONS), -1234)
    if group.dots == "extreme":
        return rng.choice([-top, top, 0, 1, -1], (n, TILE_POSITIONS))
    return rng.integers(-top // 8, top // 8, (n, TILE_POSITIONS))


def bfloat16_bits(x: np.ndarray) -> np.ndarray:
    return (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.int64)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bfloat16(x: np.ndarray) -> np.ndarray:
    return from_bfloat16(bfloat16_bits(x))


def causal(rows: int) -> list[int]:
    return [(2 << row) - 1 for row in range(rows)]


def branches(rows: int) -> list[int]:
    """Two drafts behind row 0: even and odd rows see only their own branch."""
    return [(1 << row) | 1 | sum(1 << r for r in range(row) if (row - r) % 2 == 0) for row in range(rows)]


@cache
def compiled(simulation: SimulationClass, params: DesignParams) -> Simulation:
    return simulation(Bench(params))


SMALL = design(1, 2, 8, max_row_vectors=6, max_head_dim=64)
MIDDLE = design(2, 6, 2, rows=7, max_row_vectors=16)
LARGE = design(4, 4, 2, rows=16, max_row_vectors=16)
DESIGNS = {"S1-A2-W8": SMALL, "S2-A6-W2": MIDDLE, "S4-A4-W2": LARGE}


@pytest.mark.parametrize("stall", [0.0, 0.3])
@simulations("design", DESIGNS, cocotb=["S1-A2-W8"])
def test_softmax_path(simulation: SimulationClass, design: str, stall: float):
    params = DESIGNS[design]
    few, most = params.rows, params.max_row_vectors
    head_dim = 64 if params is SMALL else 100
    groups = [
        Group(rows=1, past=0),
        Group(rows=1, past=300, queries_per_kv=2, kv_head=1, dots="extreme"),
        Group(rows=min(few, most), past=126, head_dim=head_dim, last_of_command=True),
        Group(rows=2, past=3, first_row=2, queries_per_kv=min(3, most // 2), kv_head=2, dots="equal"),
        Group(rows=2, past=128 + 5, first_row=1, queries_per_kv=most // 2, kv_head=1, last_of_command=True),
    ]
    Case(params, groups, causal(few), bench_seed()).run(compiled(simulation, params).simulator(), stall)


@pytest.mark.parametrize("stall", [0.0, 0.6])
@simulations("design", DESIGNS, cocotb=["S1-A2-W8"])
def test_masks(simulation: SimulationClass, design: str, stall: float):
    """Branches, rows that see nothing in some tiles or at all, tiles that begin or end early."""
    params = DESIGNS[design]
    few, most = params.rows, params.max_row_vectors
    visible = branches(few)
    visible[1] = 0
    rows = min(few, most)
    groups = [
        Group(rows=rows, past=0, head_dim=24, last_of_command=True),  # row 1 sees nothing at all
        Group(rows=rows, past=127, head_dim=8),  # some rows see nothing of the newest tile
        Group(rows=1, past=200, first_row=1, last_difference=7),  # nothing of the last tile
        Group(rows=3, past=140, first_row=1, queries_per_kv=2, last_difference=2, head_dim=36),
        Group(rows=1, past=0, first_row=1, queries_per_kv=2, scored=5),
        Group(rows=2, past=515, queries_per_kv=2, kv_head=3, scored=20, last_of_command=True),
    ]
    Case(params, groups, visible, bench_seed()).run(compiled(simulation, params).simulator(), stall)


@pytest.mark.parametrize("blocked", ["weights", "words", "value_sums", "weights_free", "scores", "scales", "tile"])
def test_one_slow_stream(blocked: str):
    groups = [Group(rows=4, past=126 + 128 * n, queries_per_kv=2, kv_head=n, last_of_command=n == 2) for n in range(3)]
    Case(MIDDLE, groups, causal(7), bench_seed()).run(compiled(VerilatedLibrary, MIDDLE).simulator(), {blocked: 0.9})


INTERVALS = [
    Group(1, 0, head_dim=18), Group(1, 0, queries_per_kv=3, head_dim=60), Group(1, 0, queries_per_kv=4, head_dim=16),
    Group(2, 0, queries_per_kv=3, head_dim=64), Group(1, 0, queries_per_kv=5, head_dim=64, scored=4),
    Group(1, 0, head_dim=16, scored=1)]


@simulations("design, group", product(DESIGNS, INTERVALS), cocotb=[("S1-A2-W8", INTERVALS[-1])])
def test_interval(simulation: SimulationClass, design: str, group: Group):
    params = DESIGNS[design]
    cycles = []
    for tiles in (10, 14):
        whole_tiles = replace(group, past=TILE_POSITIONS * tiles - group.rows)
        case = Case(params, [whole_tiles], causal(params.rows), bench_seed())
        cycles.append(case.run(compiled(simulation, params).simulator()).cycles)
    expected = SoftmaxPath(params, KERNELS).interval_cycles(
        group.row_vectors, -(-group.scored // params.segments), group.head_dim)
    spare = 4 * expected - (cycles[1] - cycles[0])
    assert 0 <= spare <= 2, spare  # two tiles may take an odd number of cycles together; the interval is rounded up


def test_reset_in_the_middle():
    """A stop leaves tokens, tiles and sums half way; behind the reset nothing of it is left."""
    case = Case(LARGE, [Group(rows=4, past=300, queries_per_kv=3, head_dim=60, last_of_command=True)], causal(16),
                bench_seed())
    sim = compiled(VerilatedLibrary, LARGE).simulator()
    for cycles in (90, 400, 777):
        with pytest.raises(AssertionError, match="not done"):
            sim.run_streams(case.inputs, {"weights": 10_000, "words": 10_000}, max_cycles=cycles)
        sim.reset()
        case.run(sim)
