"""rtl/head/head.py with the int8 array, against golden: logits in memory, results, slots."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from hls_py.golden.head.argmax import argmax
from hls_py.golden.head.logits import logits_of, top_k
from hls_py.kernels.registry import KERNELS
from rtl.contract.command_words import HEAD, Opcode
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, round_up
from rtl.contract.pass_descriptor import RESULT_HEADER, RowFlag, result_bytes
from rtl.head.head import Head
from rtl.int8_dot.dot_engine import DotEngine
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations

SLOTS = 16
INNER = ("operand_write", "beats", "results")


class Bench(wiring.Component):
    """Head and dot engine joined; the last token written for each slot."""

    def __init__(self, params: DesignParams):
        self.params = params
        self.head = Head(params, KERNELS, params.operand_words)
        members = {n: m for n, m in self.head.signature.members.items() if n not in (*INNER, "slot_write", "slot",
            "slot_token")}
        super().__init__({**members, "slot_tokens": Out(data.ArrayLayout(32, SLOTS))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.head = head = self.head
        m.submodules.dots = dots = DotEngine(self.params, self.params.operand_words)
        for name in INNER:
            pair = (dots.results, head.results) if name == "results" else (getattr(head, name), getattr(dots, name))
            wiring.connect(m, *pair)
        for name, member in head.signature.members.items():
            if name in INNER or name.startswith("slot"):
                continue
            inner, outer = getattr(head, name), getattr(self, name)
            if member.is_port:
                m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
            else:
                wiring.connect(m, wiring.flipped(outer), inner)
        with m.If(head.slot_write):
            m.d.sync += self.slot_tokens[head.slot].eq(head.slot_token)
        return m


def design(**changes: int) -> DesignParams:
    defaults: dict[str, int] = dict(rows=4, row_vectors=4, tables=4, outputs=2, ports=1, port_bytes=64, top_k=8,
                                    max_hidden=96,
                                    max_inner=128, max_head_dim=64, max_row_vectors=8, max_slots=SLOTS)
    return DesignParams(**{**defaults, **changes})  # type: ignore[arg-type]


DESIGNS = {
    "wide": design(),
    "two_turns": design(rows=3, row_vectors=2, port_bytes=32),
    "narrow": design(rows=1, row_vectors=2, port_bytes=16, top_k=5),
}


SIZES = [(16, 5), (72, 301), (40, 64)]


@pytest.mark.parametrize("stall", [0.0, 0.3])
@simulations("name, hidden, vocabulary", [(name, *sizes) for name in DESIGNS for sizes in SIZES],
             cocotb=[("narrow", 40, 64)])
def test_head(simulation: SimulationClass, name: str, hidden: int, vocabulary: int, stall: float):
    params = DESIGNS[name]
    seed = bench_seed() + vocabulary
    rng = np.random.default_rng(seed)
    sim = simulation(Bench(params), "headbench").simulator()
    for trial in range(3):
        rows = int(rng.integers(1, params.rows + 1))
        choices = [RowFlag.LOGITS, RowFlag.ARGMAX, RowFlag.TOP_K, RowFlag.ARGMAX | RowFlag.TOP_K | RowFlag.LOGITS,
                   RowFlag(0)]
        flags = [choices[rng.integers(len(choices))] for _ in range(rows)]
        if trial == 0:
            flags = [choices[3]] * rows
        elif not any(flags):
            flags[-1] = RowFlag.ARGMAX
        check(sim, params, rng, rows, flags, hidden, vocabulary, stall, seed)


def check(sim, params, rng, rows, flags, hidden, vocabulary, stall, seed):
    segments_of_row = -(-hidden // SEGMENT_BYTES)
    s = params.segments
    operands = np.zeros((rows, segments_of_row * SEGMENT_BYTES), np.int8)
    operands[:, :hidden] = rng.integers(-127, 128, (rows, hidden))
    row_scale = rng.uniform(0.001, 0.1, rows).astype(np.float32)
    codes = np.zeros((round_up(vocabulary, s), segments_of_row * SEGMENT_BYTES), np.int8)
    codes[:vocabulary, :hidden] = rng.choice(np.array([-127, 127, 0, 3, -50], np.int8), (vocabulary, hidden))
    codes[vocabulary // 2:vocabulary] = codes[:vocabulary - vocabulary // 2]  # ties
    scales = np.zeros(round_up(vocabulary, s), np.float32)
    scales[:vocabulary] = 0.01
    expected = logits_of(operands, row_scale, codes[:vocabulary], scales[:vocabulary])

    row, segment = np.divmod(np.arange(rows * segments_of_row), segments_of_row)
    sim.run_streams({
        "head_operands": {"row": row, "segment": segment,
                          "data": as_ints(operands.reshape(-1, SEGMENT_BYTES))},
        "row_scales": {"row": np.arange(rows), "scale": row_scale.view(np.uint32)},
    }, {}, stall=stall, seed=seed)

    k = min(params.top_k, vocabulary)
    pad = params.rows - rows
    sim.set("pass_state__rows", rows)
    sim.set("pass_state__flags", [int(f) for f in flags] + [0] * pad)
    sim.set("pass_state__slot", [3 * r % SLOTS for r in range(rows)] + [0] * pad)
    logits_row_bytes = round_up(4 * vocabulary, 64)
    results_at = round_up(params.rows * logits_row_bytes, 4096) + 4096
    sim.set("pass_state__logits_address", 4096)
    sim.set("pass_state__logits_row_bytes", logits_row_bytes)
    sim.set("pass_state__results_address", results_at)

    beat_bytes = params.beat_bytes
    by_beat = codes.reshape(-1, s, segments_of_row, SEGMENT_BYTES).transpose(0, 2, 1, 3).reshape(-1, beat_bytes)
    scale_beats = chunks(scales, 256, beat_bytes)
    runs = expected_runs(flags, vocabulary, k, params.port_bytes)
    command = HEAD.pack(opcode=Opcode.HEAD, vocabulary=vocabulary, segments=segments_of_row, top_k=k)
    run = sim.run_streams({
        "command": [int.from_bytes(command, "little")],
        "head_scales": {"data": as_ints(scale_beats), "first": 0 * scale_beats[:, 0], "last": 0 * scale_beats[:, 0],
                        "bank": 0 * scale_beats[:, 0]},
        "head_rows": {"data": as_ints(by_beat), "first": 0 * by_beat[:, 0], "last": 0 * by_beat[:, 0],
                      "bank": 0 * by_beat[:, 0]},
    }, {"port_request": len(runs), "port_data": sum(runs)}, stall=stall, seed=seed, idle_cycles=60)

    memory = np.zeros(results_at + params.rows * result_bytes(params.top_k) + 4096, np.uint8)
    replay(memory, run.outputs, params.port_bytes)
    best = argmax(expected)
    for r, flag in enumerate(flags):
        where = f"seed {seed}, row {r} of {rows}, flags {flag!r}"
        if flag & RowFlag.LOGITS:
            got = memory[4096 + r * logits_row_bytes:][:4 * vocabulary].view(np.uint32)
            np.testing.assert_array_equal(got, expected[r].view(np.uint32), err_msg=where)
        if flag & (RowFlag.ARGMAX | RowFlag.TOP_K):
            raw = memory[results_at + r * result_bytes(params.top_k):]
            header = RESULT_HEADER.unpack(raw[:16].tobytes())
            assert header["token"] == best[r], where
            assert header["count"] == (k if flag & RowFlag.TOP_K else 0), where
            if flag & RowFlag.TOP_K:
                tokens = raw[16:16 + 8 * k].view("<u4")[0::2]
                assert sorted(tokens.tolist()) == sorted(top_k(expected[r], k).tolist()), where
                np.testing.assert_array_equal(raw[16:16 + 8 * k].view("<u4")[1::2], expected[r][tokens].view(np.uint32))
        if flag & RowFlag.ARGMAX:
            assert sim.get("slot_tokens")[3 * r % SLOTS] == best[r], where


def as_ints(rows: np.ndarray) -> np.ndarray:
    """Byte rows as Python integers, little-endian."""
    return np.array([int.from_bytes(r.tobytes(), "little") for r in rows], object)


def chunks(scales: np.ndarray, rows: int, beat_bytes: int) -> np.ndarray:
    """Beats of the HEAD_SCALES records, each record padded to whole beats."""
    out = b""
    for first in range(0, len(scales), rows):
        raw = scales[first:first + rows].tobytes()
        out += raw.ljust(round_up(len(raw), beat_bytes), b"\0")
    return np.frombuffer(out, np.uint8).reshape(-1, beat_bytes)


def expected_runs(flags, vocabulary: int, k: int, port_bytes: int) -> list[int]:
    """Port words of every run that is written."""
    words = []
    for flag in flags:
        if flag & RowFlag.LOGITS:
            words += [min(64, vocabulary - first) for first in range(0, vocabulary, 64)]
        if flag & (RowFlag.ARGMAX | RowFlag.TOP_K):
            words.append(4 + (2 * k if flag & RowFlag.TOP_K else 0))
    return [-(-4 * w // port_bytes) for w in words]


def replay(memory: np.ndarray, outputs, port_bytes: int) -> None:
    """Apply requests and strobed words to ``memory``."""
    requests, words = outputs["port_request"], outputs["port_data"]
    at = 0
    for address, beats in zip(requests["address"].tolist(), requests["beats"].tolist()):
        for n in range(beats):
            raw = np.frombuffer(int(words["data"][at]).to_bytes(port_bytes, "little"), np.uint8)
            strobe = int(words["strobe"][at])
            for b in range(port_bytes):
                if strobe >> b & 1:
                    memory[address + n * port_bytes + b] = raw[b]
            at += 1
