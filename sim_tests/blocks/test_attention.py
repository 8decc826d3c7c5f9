"""rtl/attention/attention.py with the int8 array against its golden: values, stalls, rubbish in memory, cycles."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hls_py.golden.attention.attention import attend
from hls_py.kernels.registry import KERNELS
from rtl.attention.attention import Attention
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import VECTOR_ALIGN, round_up
from rtl.int8_dot.dot_engine import DotEngine
from sim_tests.blocks.attention_cases import Case, beat_ints, bfloat16, params
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.fast import VerilatedLibrary

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


_libraries: dict = {}


def bench_of(design: tuple) -> tuple[VerilatedLibrary, Attention]:
    if design not in _libraries:
        bench = AttentionBench(params(*design))
        _libraries[design] = VerilatedLibrary(bench), bench.attention
    return _libraries[design]


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


def run_attend(case: Case, simulator, stall, early: bool = False) -> np.ndarray:
    """Output vectors float32 bits [rows, row_words·W]; ``early``: the command comes before the heads."""
    requests, memory = case.reads()
    heads = case.head_streams()
    command = {"command": np.array([case.attend_command(has_norm=1)], object)}
    first = {**heads, **(command if early else {})}
    simulator.run_streams(first, {}, stall=stall) if not early else None
    count = case.rows * case.row_words
    run = simulator.run_streams(
        {**(first if early else command), "list_data": np.array(case.list_words()),
         **({"kv_data": beat_ints(memory)} if len(memory) else {})},
        {"words": count, "list_request": len(case.list_requests()),
         **({"kv_request": len(requests)} if requests else {})},
        stall=stall, idle_cycles=30)
    words, W = run.outputs["words"], case.params.vector_lanes
    assert run.outputs["words"]["last"].tolist() == [0] * (count - 1) + [1]
    np.testing.assert_array_equal(words["has_norm"], 1)
    np.testing.assert_array_equal(words["statistics"], 1)
    out = np.full((case.rows, case.row_words, W), -1, np.int64)
    out[words["row"], words["word"]] = words["data"]
    return out.reshape(case.rows, -1), run


def check(case: Case, got: np.ndarray) -> None:
    width = round_up(case.head_dim, VECTOR_ALIGN)
    wanted = np.zeros((case.rows, case.queries_per_kv * case.kv_heads, width), np.uint32)
    wanted[..., :case.head_dim] = golden(case).view(np.uint32)
    np.testing.assert_array_equal(got, wanted.reshape(case.rows, -1))


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
@pytest.mark.parametrize("design, model, sizes", CASES)
def test_equals_golden(design: tuple, model: tuple, sizes: list, stall: float):
    library, _ = bench_of(design)
    simulator = library.simulator()
    for n, branching in enumerate((False, True)):
        case = Case(params(*design), *model, sizes, seed=bench_seed() + n, branching=branching)
        case.set_pass_state(simulator)
        got, _ = run_attend(case, simulator, stall, early=n == 1)
        check(case, got)
        assert simulator.get("done") == n + 1 and simulator.get("busy") == 0
