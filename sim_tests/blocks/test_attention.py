"""rtl/attention/attention.py with the int8 array against its golden: values, stalls, rubbish in memory, cycles."""

from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hls_py.golden.attention.attention import attend
from hls_py.kernels.registry import KERNELS
from rtl.attention.attention import Attention
from rtl.attention.kv_shapes import header_beats
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import VECTOR_ALIGN, round_up
from rtl.int8_dot.dot_engine import DotEngine
from sim_tests.blocks.attention_cases import Case, DesignSizes, ModelSizes, beat_ints, bfloat16, params
from sim_tests.blocks.test_kv_writer import check_writes, write_streams
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.fast import VerilatedLibrary
from sim_tests.harness.simulations import Simulation, SimulationClass, simulations

ENGINE_PORTS = ("operand_write", "beats", "results")
COUNTED = ("done", "kv_write_done")


class AttentionBench(wiring.Component):
    """Attention with its array; counts its pulses."""

    def __init__(self, p: DesignParams):
        self.attention = Attention(p, KERNELS)
        self.engine = DotEngine(p, self.attention.operand_words)
        members = {name: member for name, member in self.attention.signature.members.items()
                   if name not in ENGINE_PORTS}
        for name in COUNTED:
            members[name] = Out(8)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.attention, m.submodules.engine = attention, engine = self.attention, self.engine
        for name in ENGINE_PORTS:
            wiring.connect(m, getattr(attention, name), getattr(engine, name))
        for name, member in self.signature.members.items():
            mine, its = getattr(self, name), getattr(attention, name)
            if name in COUNTED:
                m.d.sync += mine.eq(mine + its)
            elif member.is_signature:
                wiring.connect(m, getattr(wiring.flipped(self), name), its)
            elif member.flow is In:
                m.d.comb += its.eq(mine)
            else:
                m.d.comb += mine.eq(its)
        return m


@cache
def compiled(simulation: SimulationClass, design: DesignSizes) -> Simulation:
    return simulation(AttentionBench(params(*design)))


def golden(case: Case) -> np.ndarray:
    """float32 [rows, query heads, head_dim]."""
    out = []
    for group in case.groups:
        here = slice(group.first_row, group.first_row + group.rows)
        keys, values, key_scales, value_scales = case.sequence(group)
        out.append(attend(
            case.queries[here], bfloat16(case.query_scales[here]), keys, bfloat16(key_scales),
            values[..., :case.head_dim], bfloat16(value_scales), group.past, case.visible[here, here], case.factor))
    return np.concatenate(out)


def attend_streams(case: Case, early: bool) -> tuple[dict, dict]:
    """Inputs and output counts of an ATTEND; with ``early`` its heads come along with the command, else came before."""
    requests, memory = case.reads()
    inputs = {"command": np.array([case.attend_command(has_norm=1)], object), "list_data": np.array(case.list_words()),
              **({"kv_data": beat_ints(memory)} if len(memory) else {}), **(case.head_streams() if early else {})}
    outputs = {"words": case.rows * case.row_words, "list_request": len(case.list_requests()),
               **({"kv_request": len(requests)} if requests else {})}
    return inputs, outputs


def check_words(case: Case, words: dict) -> None:
    """Every word of every row once, equal to golden bit by bit."""
    count = case.rows * case.row_words
    assert words["last"].tolist() == [0] * (count - 1) + [1]
    np.testing.assert_array_equal(words["has_norm"], 1)
    np.testing.assert_array_equal(words["statistics"], 1)
    np.testing.assert_array_equal(words["row_words"], case.row_words)
    got = np.full((case.rows, case.row_words, case.params.vector_lanes), -1, np.int64)
    got[words["row"], words["word"]] = words["data"]
    width = round_up(case.head_dim, VECTOR_ALIGN)
    wanted = np.zeros((case.rows, case.queries_per_kv * case.kv_heads, width), np.uint32)
    wanted[..., :case.head_dim] = golden(case).view(np.uint32)
    np.testing.assert_array_equal(got.reshape(case.rows, -1), wanted.reshape(case.rows, -1))


# (ports, port_bytes, A, P, W), (KV heads, queries per KV head, head_dim), [(rows, past) …]
SMALL, MIDDLE, WIDE = (1, 16, 2, 3, 2), (2, 16, 6, 4, 4), (4, 16, 4, 16, 4)
CASES = [
    (SMALL, (2, 1, 18), [(3, 0)]),
    (SMALL, (1, 3, 64), [(1, 127), (2, 5)]),
    (MIDDLE, (2, 2, 100), [(2, 127), (1, 300), (1, 0)]),
    (MIDDLE, (1, 4, 64), [(4, 126)]),
    (WIDE, (3, 1, 96), [(9, 120), (1, 128), (3, 5), (1, 0)]),
    (WIDE, (2, 4, 32), [(1, 300), (7, 249)]),
]


@pytest.mark.parametrize("stall", [0.0, 0.4])
@simulations("design, model, sizes", CASES, cocotb=CASES[:1])
def test_equals_golden(simulation: SimulationClass, design: DesignSizes, model: ModelSizes, sizes: list, stall: float):
    simulator = compiled(simulation, design).simulator()
    for n, (early, branching) in enumerate(((False, False), (True, True))):
        case = Case(params(*design), *model, sizes, seed=bench_seed() + n, branching=branching, shared_lists=early)
        case.set_pass_state(simulator)
        if not early:
            simulator.run_streams(case.head_streams(), {}, stall=stall)
        run = simulator.run_streams(*attend_streams(case, early), stall=stall, idle_cycles=30)
        check_words(case, run.outputs["words"])
        assert simulator.get("done") == n + 1 and simulator.get("busy") == 0


@pytest.mark.parametrize("stall", [0.0, {"words": 0.6, "kv_write_data": 0.5, "kv_data": 0.3}])
def test_writes_while_attending(stall):
    """ATTEND and KV_WRITE share the newest K and V."""
    simulator = compiled(VerilatedLibrary, MIDDLE).simulator()
    case = Case(params(*MIDDLE), 2, 2, 100, [(2, 127), (1, 300), (1, 0)], seed=bench_seed())
    case.set_pass_state(simulator)
    simulator.run_streams(case.head_streams(), {}, stall=stall)
    (inputs, outputs), (write_inputs, write_outputs, requests) = attend_streams(case, False), write_streams(case)
    run = simulator.run_streams({**inputs, **write_inputs}, {**outputs, **write_outputs}, stall=stall, idle_cycles=30)
    check_words(case, run.outputs["words"])
    check_writes(case, run.outputs, requests)
    assert simulator.get("done") == 1 and simulator.get("kv_write_done") == 1


OVERHEAD_CYCLES = 240
"""From a command to its first beat, and from its last beat to its last word."""


@pytest.mark.parametrize("model, sizes, cycles_per_tile", [
    ((2, 1, 96), [(1, 1000)], "memory"), ((2, 4, 96), [(1, 1000)], "array"), ((5, 1, 96), [(1, 100)], "memory")])
def test_cycles(model: ModelSizes, sizes: list, cycles_per_tile: str):
    """Long tiles take what their bottleneck takes, and a command little more."""
    simulator, attention = compiled(VerilatedLibrary, WIDE).simulator(), Attention(params(*WIDE), KERNELS)
    case = Case(params(*WIDE), *model, sizes, seed=bench_seed())
    case.set_pass_state(simulator)
    simulator.run_streams(case.head_streams(), {})
    run = simulator.run_streams(*attend_streams(case, False))
    check_words(case, run.outputs["words"])
    least = {"memory": sum(attention.memory_cycles(t.past_positions, case.head_dim) for t in case.tiles),
             "array": sum(attention.array_cycles(t.group.rows * case.queries_per_kv, t.positions, case.head_dim)
                          for t in case.tiles)}
    assert max(least.values()) == least[cycles_per_tile]
    # the array also waits while a tile's header passes
    headers = 0 if cycles_per_tile == "memory" else len(case.tiles) * header_beats(case.params)
    assert max(least.values()) < run.cycles <= max(least.values()) + headers + OVERHEAD_CYCLES
