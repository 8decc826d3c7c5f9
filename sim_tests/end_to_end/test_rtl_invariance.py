"""A row's bits depend only on its own history: RTL of several designs against golden's uncut run at P = 1."""

from __future__ import annotations

import pytest

from host.accelerator import Accelerator
from sim_tests.end_to_end.test_designs import rows_1_dense_1_port, rows_4_dense_2_ports, rows_16_five_bit_2_ports
from sim_tests.harness.machines import check_rules, simulated_machine
from sim_tests.harness.models import TinyModel
from sim_tests.harness.passes import Histories, run_case, uncut

MODEL = TinyModel()
CASES = 6


@pytest.fixture(scope="module")
def histories(tmp_path_factory) -> Histories:
    return uncut(MODEL, tmp_path_factory.mktemp("uncut"))


@pytest.fixture(scope="module")
def machine(request, tmp_path_factory) -> Accelerator:
    folder = tmp_path_factory.mktemp("machine")
    return simulated_machine(MODEL.write(folder / "model"), request.param(), folder / "image")


@pytest.mark.parametrize("seed", range(CASES))
@pytest.mark.parametrize("machine", [
    rows_1_dense_1_port, rows_16_five_bit_2_ports, pytest.param(rows_4_dense_2_ports, marks=pytest.mark.full)],
    indirect=True, ids=lambda board: board.__name__)
def test_any_cut_any_company(machine: Accelerator, histories: Histories, seed: int):
    run_case(machine, histories, 1000 + seed)
    check_rules(machine)
