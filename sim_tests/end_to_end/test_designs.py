"""The demo model on designs of many kinds: RTL equals golden bit for bit, at every position.

Golden logits don't depend on the design (test_invariance), so the demo design's golden stands for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hls_py.boards import Board, load_board
from host.accelerator import Accelerator
from host.commands.common import DEMO_MODEL
from rtl.contract.weight_encodings import DENSE, FIVE_BIT
from sim_tests.end_to_end.test_demo_model import GENERATED, generate, prompt_tokens
from sim_tests.harness.machines import check_rules, golden_machine, plain_board, simulated_machine, small_design
from sim_tests.harness.passes import assert_equal

MEMORY_BYTES = 64 << 20
BRIEFLY = 16
"""Tokens generated where there is no time for GENERATED."""


def small_board(**changes: object) -> Board:
    """A design just large enough for the demo model."""
    return plain_board(small_design(**{**dict(max_hidden=256, max_inner=768, max_heads=4, max_kv_width=256,
                                              max_head_dim=64, max_slots=4, drain_steps=300), **changes}))


def rows_1_dense_1_port() -> Board:
    return small_board(rows=1, encoding=DENSE, tables=13, outputs=4, ports=1, port_bytes=32, vector_lanes=2,
                       row_vectors=2, rows_per_builder=1)


def rows_1_five_bit_2_ports() -> Board:
    return small_board(rows=1, encoding=FIVE_BIT, tables=10, outputs=5, ports=2, port_bytes=16, row_vectors=6,
                       burst_beats=11)


def rows_1_dense_4_ports() -> Board:
    return small_board(rows=1, encoding=DENSE, tables=7, outputs=5, group=4, ports=4, port_bytes=8, vector_lanes=8,
                       max_row_vectors=1)


def rows_4_five_bit_1_port() -> Board:
    return small_board(rows=4, encoding=FIVE_BIT, tables=17, outputs=6, ports=1, port_bytes=64, vector_lanes=8,
                       rows_per_builder=3)


def rows_4_dense_2_ports() -> Board:
    return small_board(rows=4, encoding=DENSE, tables=20, outputs=4, group=4, ports=2, port_bytes=32, vector_lanes=2,
                       row_vectors=2)


def rows_4_five_bit_4_ports() -> Board:
    return small_board(rows=4, encoding=FIVE_BIT, tables=20, outputs=5, ports=4, port_bytes=16)


def rows_16_dense_1_port() -> Board:
    return small_board(rows=16, encoding=DENSE, tables=16, outputs=5, group=2, ports=1, port_bytes=32, row_vectors=8,
                       rows_per_builder=5, tile_steps=100, max_inner=600)  # 13 rows of the FFN's vector


def rows_16_five_bit_2_ports() -> Board:
    return small_board(rows=16, encoding=FIVE_BIT, tables=12, outputs=4, ports=2, port_bytes=16, row_vectors=6,
                       rows_per_builder=4)


def kv260() -> Board:
    return load_board("kv260")


def kv260_dense() -> Board:
    return load_board("kv260", dict(encoding=DENSE, tables=26, outputs=4))


# Every pair of rows and ports, and both encodings with each number of either.
SMALL = [rows_1_dense_1_port, rows_1_five_bit_2_ports, rows_1_dense_4_ports, rows_4_five_bit_1_port,
         rows_4_dense_2_ports, rows_4_five_bit_4_ports, rows_16_dense_1_port, rows_16_five_bit_2_ports]
ALWAYS = rows_16_five_bit_2_ports
"""Runs in `make test`, too, as the demo design does in test_demo_model."""


@dataclass(frozen=True)
class Expected:
    logits: np.ndarray
    tokens: list[int]


@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> dict[int, Expected]:
    machine = golden_machine(DEMO_MODEL, load_board().params, tmp_path_factory.mktemp("golden"), MEMORY_BYTES)
    return {count: Expected(*generate(machine, prompt_tokens(count), GENERATED)) for count in (61, 64)}


@pytest.fixture(scope="module")
def machine(request, tmp_path_factory) -> Accelerator:
    board = request.param()
    return simulated_machine(DEMO_MODEL, board, tmp_path_factory.mktemp("image"), MEMORY_BYTES)


def check(machine: Accelerator, expected: Expected, count: int, generated: int) -> None:
    logits, tokens = generate(machine, prompt_tokens(count), generated)
    assert_equal(logits, expected.logits[:count + generated])
    assert tokens == expected.tokens[:generated]
    check_rules(machine)


@pytest.mark.parametrize("machine", [rows_1_dense_1_port], indirect=True, ids=lambda board: board.__name__)
def test_one_row_briefly(machine: Accelerator, golden):
    check(machine, golden[61], 61, BRIEFLY)


@pytest.mark.parametrize("count", [61, 64])
@pytest.mark.parametrize("machine", [
    pytest.param(board, marks=() if board is ALWAYS else pytest.mark.full, id=board.__name__)
    for board in [*SMALL, kv260, kv260_dense]], indirect=True)
def test_every_logit(machine: Accelerator, golden, count: int):
    check(machine, golden[count], count, GENERATED)
