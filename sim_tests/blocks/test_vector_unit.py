"""rtl/vector_unit/vector_unit.py: one layer's element-wise work, in the order of a program, against golden.

GATHER → QUANTISE → heads drained → attention's words → QUANTISE → RESIDUAL → QUANTISE → GATED → QUANTISE → RESIDUAL →
QUANTISE for the head: every memory and every path between the blocks, with sub-norms and without, several rows, stalls.
"""

from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hls_py.golden.vector_unit import drain as golden
from hls_py.golden.vector_unit.gather import gather_embedding
from hls_py.golden.vector_unit.quantise import quantise, to_slices
from hls_py.kernels.norm import norm_finalise, norm_quantise
from hls_py.kernels.registry import KERNELS
from rtl.contract.command_words import (
    DRAIN,
    GATHER,
    QUANTISE,
    ActivationFunction,
    DrainMode,
    QuantiseSource,
    QuantiseTarget,
)
from rtl.contract.design_params import DesignParams
from rtl.vector_unit.vector_unit import UNITS, VectorUnit
from sim_tests.blocks.test_vector_quantise import int8_of
from sim_tests.blocks.test_vector_statistics import gain_beats
from sim_tests.blocks.vector_bench import (
    Ring,
    as_words,
    commands,
    load_layout,
    ring_words,
    same,
    seed_of,
    watched,
)
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

HIDDEN, INNER, HEAD_DIM, HEADS = 40, 72, 18, 3
HEAD_PADDED = 24
EPSILON = 1e-5


class Bench(wiring.Component):
    """The unit with a drain ring; ``…_finished`` are its done pulses as streams."""

    def __init__(self, params: DesignParams):
        self.params = params
        self.unit = VectorUnit(params, KERNELS)
        passed = {name: member for name, member in self.unit.signature.members.items()
                  if name not in ("drain_read", "drain_release", *(f"{unit}_done" for unit in UNITS))}
        super().__init__({
            **passed,
            "ring_load": In(stream.Signature(load_layout(
                params.rows * params.drain_steps, data.ArrayLayout(params.accumulator_bits, params.outputs)))),
            **{f"{unit}_finished": Out(stream.Signature(1)) for unit in UNITS},
        })
        self.passed = list(passed)

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        m.submodules.ring = ring = Ring(self.params)
        for name in self.passed:
            port = getattr(self, name)
            if isinstance(port, wiring.PureInterface) or hasattr(port, "signature"):
                connect(m, flipped(port), getattr(unit, name))
            elif self.signature.members[name].flow is wiring.In:
                m.d.comb += getattr(unit, name).eq(port)
            else:
                m.d.comb += port.eq(getattr(unit, name))
        connect(m, unit.drain_read, ring.read)
        connect(m, flipped(self.ring_load), ring.load)
        for name in UNITS:
            watched(m, name, getattr(self, f"{name}_finished"), getattr(unit, f"{name}_done"), Cat(1))
        return m


# W, Q, P, T
DESIGNS = {"w4q5p3t5": (4, 5, 3, 5), "w8q3p2t7": (8, 3, 2, 7), "w2q4p1t3": (2, 4, 1, 3)}


@cache
def compiled(simulation: SimulationClass, design: str) -> tuple[DesignParams, Simulation]:
    lanes, outputs, rows, tables = DESIGNS[design]
    params = DesignParams(rows=rows, tables=tables, outputs=outputs, vector_lanes=lanes, ports=1, port_bytes=16,
                          max_hidden=HIDDEN, max_inner=INNER, max_head_dim=HEAD_DIM, tile_steps=32, drain_steps=100,
                          activations=("relu_squared",) if lanes == 2 else ("silu", "relu_squared"))
    return params, simulation(Bench(params), f"vector_bench_{design}")


class Layer:
    """The simulated unit and the golden state beside it."""

    def __init__(self, simulation: SimulationClass, design: str, stall: float):
        self.params, bench = compiled(simulation, design)
        self.lanes = self.params.vector_lanes
        self.stall, self.seed = stall, seed_of(design, stall, bench_seed())
        self.rng = np.random.default_rng(self.seed)
        self.sim = bench.simulator()
        self.rows = int(self.rng.integers(1, self.params.rows + 1))
        self.sim.set("pass_state__rows", self.rows)
        self.sim.set("activation_free", 3)
        self.ring_at = 0

    def run(self, inputs: dict, outputs: dict) -> dict:
        names = [n for n in (*inputs, *outputs) if n != "ring_load"]
        return self.sim.run_streams(inputs, outputs, stall=dict.fromkeys(names, self.stall) if self.stall else 0.0,
                                    seed=self.seed, idle_cycles=5).outputs

    def tile(self, outputs: int, limit: int = 3000) -> tuple[np.ndarray, tuple[int, int]]:
        """Sums of a tile, written to the ring: ([R, steps·Q], (base, steps))."""
        steps = -(-outputs // self.params.outputs)
        sums = self.rng.integers(-limit, limit + 1, (self.rows, steps * self.params.outputs))
        place = (self.ring_at, steps)
        self.ring_at = (self.ring_at + steps) % self.params.drain_steps
        self.sim.run_streams({"ring_load": ring_words(self.params, sums, place[0])}, {})
        return sums, place

    def gains(self, length: int, bank: int) -> tuple[np.ndarray, dict]:
        gain = self.rng.normal(1, 0.3, length).astype(np.float32)
        return gain, gain_beats(self.params, gain, bank)

    def quantise(self, source: QuantiseSource, x: np.ndarray, gain: np.ndarray | None, bank: int, buffer: int,
                 more: dict | None = None) -> np.ndarray:
        """QUANTISE of x [R, K] to activations; returns the scales. ``more``: inputs that come meanwhile."""
        elements = self.params.slice_elements
        slices = -(-x.shape[1] // elements)
        inverse = np.float32(1 / x.shape[1])
        words = x.shape[1] // self.lanes
        got = self.run({"quantise_command": commands(QUANTISE, dict(
            source=source, activation=buffer, has_norm=int(gain is not None), gain_bank=bank, words=words,
            row_words=words, slices=slices, inverse_count=inverse, epsilon=EPSILON)), **(more or {})},
            {"activation": slices * self.rows, "quantise_finished": 1})["activation"]
        codes, scale = quantise(x, gain, gain is not None, inverse, EPSILON)
        same(int8_of(got["data"], elements), to_slices(codes, elements, slices).reshape(-1, elements))
        assert (got["buffer"] == buffer).all()
        return scale


@pytest.mark.parametrize("stall", [0.0, 0.3])
@simulations("design", [*list(DESIGNS)[:2], pytest.param(list(DESIGNS)[2], marks=pytest.mark.full)],
             cocotb=list(DESIGNS)[:1])
def test_layer(simulation: SimulationClass, design: str, stall: float):
    layer = Layer(simulation, design, stall)
    params, sim, rows, lanes, rng = layer.params, layer.sim, layer.rows, layer.lanes, layer.rng
    words = {name: width // lanes for name, width in (("hidden", HIDDEN), ("inner", INNER))}

    # Embedding and rotary rows; the attention norm's gains come while the words already wait for them.
    tokens, positions = rng.integers(0, 9, params.rows), rng.integers(0, 7, params.rows)
    row_beats, rotary_beats = 2 * HIDDEN // 16, -(-4 * HEAD_DIM // 16)
    embedding = (rng.normal(size=(9, HIDDEN)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    rotary = np.zeros((7, 4 * rotary_beats), np.float32)
    rotary[:, :HEAD_DIM] = rng.normal(size=(7, HEAD_DIM))
    sim.set("pass_state__token", tokens.tolist())
    sim.set("pass_state__position", positions.tolist())
    beats = []
    for r in range(rows):
        raw = embedding[tokens[r]].tobytes() + rotary[positions[r]].tobytes()
        beats += [int.from_bytes(raw[n:n + 16], "little") for n in range(0, len(raw), 16)]
    gain_0, record_0 = layer.gains(HIDDEN, 0)
    layer.run({"gather_command": commands(GATHER, dict(
                  has_norm=1, gain_bank=0, words=words["hidden"], row_words=words["hidden"], pairs=HEAD_DIM // 2,
                  embedding_row_beats=row_beats, rotary_row_beats=rotary_beats, rotary_beat=9 * row_beats)),
               "table_data": np.array(beats, object), "gains": record_0},
              {"table_request": 2 * rows, "gather_finished": 1})
    residual = gather_embedding(embedding.tobytes(), 2 * HIDDEN, tokens[:rows], HIDDEN)
    cos, sin = rotary[positions[:rows], 0:HEAD_DIM:2], rotary[positions[:rows], 1:HEAD_DIM:2]
    scale = layer.quantise(QuantiseSource.RESIDUAL, residual, gain_0, 0, 0)

    # Query, key and value heads: three tiles, commands queued at once; a sub-norm's gains fill the other bank.
    tiles, inputs, expected = [], [], []
    for mode in (DrainMode.QUERY, DrainMode.KEY, DrainMode.VALUE):
        sums, place = layer.tile(HEADS * HEAD_PADDED)
        acc = sums[:, :HEADS * HEAD_PADDED].reshape(rows, HEADS, HEAD_PADDED)
        acc[..., HEAD_DIM:] = 0
        sim.run_streams({"ring_load": ring_words(params, sums, place[0])}, {})
        tiles.append(place)
        inputs.append(dict(mode=mode, steps=place[1], outputs=HEADS * HEAD_PADDED, head_dim=HEAD_DIM, scale=0.1))
        expected.append(golden.drain_heads(acc, golden.row_scales(scale, np.float32(0.1)), cos, sin,
                                           mode != DrainMode.VALUE, HEAD_DIM))
    gain_1, record_1 = layer.gains(INNER, 1)
    base, steps = np.array(tiles).T
    got = layer.run({"drain_command": commands(DRAIN, *inputs), "tile": {"base": base, "steps": steps},
                     "gains": record_1},
                    {"heads": 3 * rows * HEADS * 2, "head_scales": 3 * rows * HEADS, "drain_finished": 3})
    same(int8_of(got["heads"]["data"], 16), np.concatenate([codes.reshape(-1, 16) for codes, _ in expected]))
    same(got["head_scales"]["scale"], np.concatenate([bits.reshape(-1) for _, bits in expected]))

    # Attention's words, head by head over all rows, with a sub-norm; then o onto the residual with the FFN norm.
    attention = rng.normal(size=(rows, INNER)).astype(np.float32)
    order = [(r, w) for head in range(3) for r in range(rows)
             for w in range(head * HEAD_PADDED // lanes, (head + 1) * HEAD_PADDED // lanes)]
    row, word = np.array(order).T
    n = len(order)
    gain_2, record_2 = layer.gains(HIDDEN, 0)
    layer.run({"words": {"row": row, "word": word, "row_words": np.full(n, words["inner"]),
                         "data": as_words(attention, lanes).reshape(rows, -1, lanes)[row, word],
                         "statistics": np.ones(n, int), "has_norm": np.ones(n, int), "gain_bank": np.ones(n, int),
                         "last": np.arange(n) == n - 1}, "gains": record_2}, {})
    scale = layer.quantise(QuantiseSource.VECTOR, attention, gain_1, 1, 1)
    residual = residual_drain(layer, residual, scale, 1, bank=0)
    gain_3, record_3 = layer.gains(INNER, 1)
    scale = layer.quantise(QuantiseSource.RESIDUAL, residual, gain_2, 0, 0, more={"gains": record_3})

    # Gate and up: two pairs; the second one's statistics complete a sub-norm. Then down, without one.
    function = ActivationFunction.RELU_SQUARED
    vector = np.zeros((rows, INNER), np.float32)
    tiles, inputs = [], []
    for first, outputs in ((0, 40), (40, 32)):
        (gate, gate_at), (up, up_at) = layer.tile(outputs), layer.tile(outputs)
        tiles += [gate_at, up_at]
        inputs.append(dict(mode=DrainMode.GATED, function=function, steps=gate_at[1], outputs=outputs, statistics=1,
                           has_norm=1, gain_bank=1, first_word=first // lanes, row_words=words["inner"], scale=0.01,
                           scale2=0.02))
        gate_scale, up_scale = golden.row_scales(scale, 0.01), golden.row_scales(scale, 0.02)
        part = golden.gated(gate[:, :outputs], up[:, :outputs], gate_scale, up_scale, function)
        vector[:, first:first + outputs] = part
    base, steps = np.array(tiles).T
    layer.run({"drain_command": commands(DRAIN, *inputs), "tile": {"base": base, "steps": steps}},
              {"drain_finished": 2})
    gain_4, record_4 = layer.gains(HIDDEN, 0)
    scale = layer.quantise(QuantiseSource.VECTOR, vector, gain_3, 1, 1, more={"gains": record_4})
    residual = residual_drain(layer, residual, scale, 1, bank=0)

    # The final norm, for the head.
    segments = -(-HIDDEN // 16)
    got = layer.run({"quantise_command": commands(QUANTISE, dict(
        source=QuantiseSource.RESIDUAL, target=QuantiseTarget.HEAD, has_norm=1, gain_bank=0, words=words["hidden"],
        row_words=words["hidden"], slices=segments, inverse_count=np.float32(1 / HIDDEN), epsilon=EPSILON))},
        {"head_operands": rows * segments, "row_scales": rows, "quantise_finished": 1})
    codes, scale = quantise(residual, gain_4, True, np.float32(1 / HIDDEN), EPSILON)
    same(int8_of(got["head_operands"]["data"], 16), to_slices(codes, 16, segments).reshape(-1, 16))
    same(got["row_scales"]["scale"].astype(np.uint32).view(np.float32), scale)
    assert not any(sim.get(f"{unit}_busy") for unit in UNITS)


def residual_drain(layer: Layer, residual: np.ndarray, scale: np.ndarray, buffer: int, bank: int) -> np.ndarray:
    """Two tiles onto the residual, with statistics of the norm whose gains are in ``bank``."""
    parts, tiles, inputs = [], [], []
    for first, outputs in ((0, 24), (24, 16)):
        sums, place = layer.tile(outputs)
        parts.append(sums[:, :outputs])
        tiles.append(place)
        inputs.append(dict(mode=DrainMode.RESIDUAL, activation=buffer, steps=place[1], outputs=outputs, statistics=1,
                           has_norm=1, gain_bank=bank, first_word=first // layer.lanes,
                           row_words=HIDDEN // layer.lanes, scale=0.05))
    base, steps = np.array(tiles).T
    layer.run({"drain_command": commands(DRAIN, *inputs), "tile": {"base": base, "steps": steps}},
              {"drain_finished": 2})
    return golden.drain_residual(np.concatenate(parts, axis=1), golden.row_scales(scale, 0.05), residual)


@simulations("design", list(DESIGNS)[:2], cocotb=list(DESIGNS)[:1])
def test_engines_run_beside_one_another(simulation: SimulationClass, design: str):
    """A gated drain and attention write the vector at once; then heads are drained while slices are being taken."""
    layer = Layer(simulation, design, 0.3)
    rows, lanes, rng = layer.rows, layer.lanes, layer.rng
    row_words, first = INNER // lanes, 40
    attention = rng.normal(size=(rows, INNER - first)).astype(np.float32)
    (gate, gate_at), (up, up_at) = layer.tile(first), layer.tile(first)
    order = np.array([(r, w) for r in range(rows) for w in range((INNER - first) // lanes)])
    row, word, n = order[:, 0], order[:, 1], len(order)
    zeros = np.zeros(n, int)
    # Scales of the gate's activations: a vector of zeros leaves the reference's floor.
    layer.run({"words": {"row": np.arange(rows), "word": np.zeros(rows, int), "row_words": np.full(rows, row_words),
                         "data": np.zeros((rows, lanes), int), "statistics": np.ones(rows, int),
                         "has_norm": np.zeros(rows, int), "gain_bank": np.zeros(rows, int),
                         "last": np.zeros(rows, int)}}, {})
    scale = layer.quantise(QuantiseSource.VECTOR, np.zeros((rows, lanes), np.float32), None, 0, 0)
    base, steps = np.array([gate_at, up_at]).T
    layer.run({"drain_command": commands(DRAIN, dict(
                  mode=DrainMode.GATED, function=ActivationFunction.RELU_SQUARED, steps=gate_at[1], outputs=first,
                  statistics=1, row_words=row_words, scale=3e4, scale2=5e3)),
               "tile": {"base": base, "steps": steps},
               "words": {"row": row, "word": word + first // lanes, "row_words": np.full(n, row_words),
                         "data": as_words(attention, lanes), "statistics": zeros, "has_norm": zeros,
                         "gain_bank": zeros, "last": np.arange(n) == n - 1}}, {"drain_finished": 1})
    drained = golden.gated(gate[:, :first], up[:, :first], golden.row_scales(scale, 3e4),
                           golden.row_scales(scale, 5e3), ActivationFunction.RELU_SQUARED)

    # Only what was drained counts in the row's absmax.
    elements = layer.params.slice_elements
    slices = -(-INNER // elements)
    sums, place = layer.tile(HEAD_PADDED)
    acc = sums[:, None, :HEAD_PADDED].copy()
    acc[..., HEAD_DIM:] = 0
    got = layer.run({
        "quantise_command": commands(QUANTISE, dict(source=QuantiseSource.VECTOR, activation=1, words=row_words,
                                                    row_words=row_words, slices=slices)),
        "drain_command": commands(DRAIN, dict(mode=DrainMode.VALUE, activation=0, steps=place[1], outputs=HEAD_PADDED,
                                              head_dim=HEAD_DIM, scale=7.0)),
        "tile": {"base": [place[0]], "steps": [place[1]]}},
        {"activation": slices * rows, "quantise_finished": 1, "drain_finished": 1, "heads": 2 * rows,
         "head_scales": rows})
    none = np.array(0)
    zero = np.float32(0)
    inverse, _ = norm_finalise(np.zeros(rows, np.float32), np.abs(drained).max(axis=1), zero, zero, none)
    vector = np.concatenate([drained, attention], axis=1)
    codes = norm_quantise(vector, np.zeros_like(vector), none, inverse[:, None])
    same(int8_of(got["activation"]["data"], elements), to_slices(codes, elements, slices).reshape(-1, elements))
    codes, bits = golden.drain_heads(acc, golden.row_scales(scale, 7.0), None, None, False, HEAD_DIM)
    same(int8_of(got["heads"]["data"], 16), codes.reshape(-1, 16))
    same(got["head_scales"]["scale"], bits.reshape(-1))
