"""rtl/vector_unit/gather.py against golden: requests, residual, rotary memory, statistics, stalls, cycles."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hls_py.golden.vector_unit.gather import gather_embedding, gather_rotary
from rtl.contract.command_words import GATHER
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes
from rtl.vector_unit.gather import Gather
from rtl.vector_unit.head_path import rotary_depth, rotary_words_log2
from rtl.vector_unit.statistics import statistics_word
from rtl.vector_unit.word_memory import float_words
from sim_tests.blocks.vector_bench import as_floats, commands, load_layout, same, seed_of, watched
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

DESIGNS = {"w4p3b16": (4, 3, 16), "w8p4b16": (8, 4, 16), "w2p1b64": (2, 1, 64)}


class Bench(wiring.Component):
    """Gather with what it writes as streams."""

    def __init__(self, params: DesignParams):
        self.params = params
        word = float_words(params.vector_lanes)
        super().__init__({
            "command": In(stream.Signature(shapes.COMMAND_BITS)), "rows": In(bits_for(params.rows)),
            "token": In(data.ArrayLayout(32, params.rows)), "position": In(data.ArrayLayout(32, params.rows)),
            "table_request": Out(stream.Signature(shapes.STRIPED_REQUEST)),
            "table_data": In(stream.Signature(8 * params.beat_bytes)),
            "statistics": Out(stream.Signature(statistics_word(params))),
            "residual": Out(stream.Signature(load_layout(params.residual_words, word))),
            "rotary": Out(stream.Signature(load_layout(rotary_depth(params), word))),
            "finished": Out(stream.Signature(1)), "taken": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.gather = gather = Gather(self.params)
        for name in ("command", "table_request", "table_data", "statistics"):
            connect(m, flipped(getattr(self, name)), getattr(gather, name))
        m.d.comb += [gather.rows.eq(self.rows), gather.token.eq(self.token), gather.position.eq(self.position),
                     gather.residual_taken.eq(self.taken)]
        for name, port in (("residual", gather.residual_write), ("rotary", gather.rotary_write)):
            watched(m, name, getattr(self, name), port.enable, Cat(port.address, port.data))
        watched(m, "finished", self.finished, gather.done, Cat(1))
        return m


@cache
def compiled(simulation: SimulationClass, design: str) -> tuple[DesignParams, Simulation]:
    lanes, rows, beat_bytes = DESIGNS[design]
    params = DesignParams(rows=rows, tables=1, outputs=2, vector_lanes=lanes, ports=1, port_bytes=beat_bytes,
                          max_hidden=96, max_inner=96, max_head_dim=100)
    return params, simulation(Bench(params), f"gather_bench_{design}")


def beats_of(table: bytes, beat: int, beats: int, beat_bytes: int) -> list[int]:
    return [int.from_bytes(table[(beat + n) * beat_bytes:(beat + n + 1) * beat_bytes], "little") for n in range(beats)]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("design, head_dim", product(DESIGNS, [0, 18, 64, 100]), cocotb=[("w4p3b16", 0), ("w4p3b16", 18)])
def test_gather(simulation: SimulationClass, design: str, head_dim: int, stall: float):
    params, bench = compiled(simulation, design)
    lanes, beat_bytes = params.vector_lanes, params.beat_bytes
    seed = seed_of(design, head_dim, stall, bench_seed())
    rng = np.random.default_rng(seed)
    sim = bench.simulator()
    rows, length, pairs = int(rng.integers(1, params.rows + 1)), int(rng.choice([72, 88, 96])), head_dim // 2
    tokens, positions = rng.integers(0, 40, params.rows), rng.integers(0, 30, params.rows)
    row_beats = -(-2 * length // beat_bytes)
    rotary_row_beats = -(-8 * pairs // beat_bytes)
    embedding = np.zeros((40, row_beats * beat_bytes // 2), np.uint16)
    embedding[:, :length] = rng.integers(0, 1 << 16, (40, length))
    rotary = np.zeros((30, rotary_row_beats * beat_bytes // 4), np.float32)
    rotary[:, :2 * pairs] = rng.normal(size=(30, 2 * pairs))
    table = embedding.tobytes() + rotary.tobytes()
    base = 1_000_000
    rotary_beat = base + len(embedding.tobytes()) // beat_bytes

    beats, requests = [], []
    for r in range(rows):
        requests.append((base + int(tokens[r]) * row_beats, row_beats))
        if pairs:
            requests.append((rotary_beat + int(positions[r]) * rotary_row_beats, rotary_row_beats))
    for beat, count in requests:
        beats += beats_of(table, beat - base, count, beat_bytes)
    sim.set("rows", rows)
    sim.set("token", tokens.tolist())
    sim.set("position", positions.tolist())
    words, row_words, rotary_words = length // lanes, 96 // lanes, -(-rotary_row_beats * beat_bytes // (4 * lanes))
    command = dict(has_norm=1, gain_bank=1, words=words, row_words=row_words, pairs=pairs, embedding_beat=base,
                   embedding_row_beats=row_beats, rotary_row_beats=rotary_row_beats, rotary_beat=rotary_beat)
    outputs = {"table_request": len(requests), "statistics": rows * words, "residual": rows * words, "finished": 1}
    if pairs:
        outputs["rotary"] = rows * rotary_words
    run = sim.run_streams({"command": commands(GATHER, command), "table_data": np.array(beats, object)}, outputs,
                          stall={n: stall for n in ("table_request", "table_data", "statistics")} if stall else 0.0,
                          seed=seed, idle_cycles=10)
    same(run.outputs["table_request"]["beat"], [beat for beat, _ in requests])
    same(run.outputs["table_request"]["beats"], [count for _, count in requests])

    got = run.outputs["residual"]
    same(got["address"], (np.arange(rows)[:, None] * row_words + np.arange(words)).reshape(-1))
    bits = (embedding[tokens[:rows], :length].astype(np.uint32) << 16).reshape(-1, lanes)
    same(got["data"].astype(np.uint32), bits)
    same(run.outputs["statistics"]["data"].astype(np.uint32), bits)
    same(run.outputs["statistics"]["row"], np.repeat(np.arange(rows), words))
    same(run.outputs["statistics"]["word"], np.tile(np.arange(words), rows))
    assert run.outputs["statistics"]["has_norm"].all() and run.outputs["statistics"]["gain_bank"].all()
    # The golden makes subnormals and NaN canonical, as whoever reads the memory does.
    expected = gather_embedding(embedding.tobytes(), row_beats * beat_bytes, tokens[:rows], length)
    same(gather_embedding(got["data"].astype(np.uint32).view(np.uint16)[:, 1::2].tobytes(), 2 * length,
                          np.arange(rows), length), expected)

    if pairs:
        got = run.outputs["rotary"]
        row, word = got["address"] >> rotary_words_log2(params), got["address"] & ((1 << rotary_words_log2(params)) - 1)
        same(row, np.repeat(np.arange(rows), rotary_words))
        same(word, np.tile(np.arange(rotary_words), rows))
        memory = as_floats(got["data"]).reshape(rows, -1)
        cos, sin = gather_rotary(rotary.tobytes(), rotary_row_beats * beat_bytes, positions[:rows], pairs)
        same(memory[:, 0:2 * pairs:2], cos)
        same(memory[:, 1:2 * pairs:2], sin)
    if not stall:
        times = run.transfer_cycles["statistics"]
        assert times[words - 1] - times[0] == words - 1, "a word a cycle within a row"
        # The watching FIFO shows a pulse two cycles later.
        assert run.transfer_cycles["finished"][0] - 2 - times[0] == Gather(params).interval_cycles(rows, command)


@simulations()
def test_waits_for_the_residual_port(simulation: SimulationClass):
    sim = compiled(simulation, "w4p3b16")[1].simulator()
    sim.set("rows", 1)
    command = commands(GATHER, dict(words=2, row_words=2, embedding_row_beats=1))
    sim.set("taken", 1)
    beat = np.array([5 << 16], object)
    with pytest.raises(AssertionError, match="not done"):
        sim.run_streams({"command": command, "table_data": beat}, {"statistics": 2, "table_request": 1}, max_cycles=100)
    sim.set("taken", 0)
    run = sim.run_streams({"table_data": beat}, {"statistics": 2, "residual": 2})
    same(run.outputs["residual"]["data"].astype(np.uint32)[0], [0, 5 << 16, 0, 0])
