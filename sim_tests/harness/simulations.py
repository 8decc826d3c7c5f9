"""Both simulations of the harness, and the mark that runs one bench text by them.

    @pytest.mark.parametrize("stall", [0.0, 0.4])
    @simulations("rows, logits", [(1, 1), (3, 33), (16, 301)], cocotb=[(3, 33)])
    def test_argmax(simulation: SimulationClass, rows: int, logits: int, stall: float):
        sim = simulation(Argmax(rows)).simulator()          # sim_tests.harness.simulation says what it offers
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from sim_tests.harness.cocotb_simulation import CocotbSimulation
from sim_tests.harness.fast import VerilatedLibrary

Simulation = VerilatedLibrary | CocotbSimulation
SimulationClass = Callable[..., Simulation]  # a type[Simulation], but mypy takes classes for unhashable


def simulations(names: str = "", cases: Iterable[Any] = ((),),
                cocotb: Iterable[Any] | None = None) -> pytest.MarkDecorator:
    """Parametrize a test by ``simulation`` and ``names``: ``cases`` in the loop in C++, ``cocotb`` under cocotb.

    Without ``cocotb`` it gets the same cases. They are as ``pytest.mark.parametrize`` takes them. Under cocotb small
    designs with few payloads do: the volume is the library's part.
    """
    cases = list(cases)
    several = "," in names or not names
    rows = []
    for simulation, listed in ((VerilatedLibrary, cases), (CocotbSimulation, cases if cocotb is None else cocotb)):
        for case in listed:
            if isinstance(case, type(pytest.param())):
                rows.append(pytest.param(simulation, *case.values, marks=case.marks,
                                         id=case.id and f"{simulation.__name__}-{case.id}"))
            else:
                rows.append(pytest.param(simulation, *(case if several else [case])))
    return pytest.mark.parametrize(", ".join(["simulation", *filter(None, [names])]), rows)
