"""Which unit was busy when, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from host.cycle_account import CycleAccount
from host.devices.verilator import PortBit
from host.errors import HostError

WINDOWS = 800
"""Columns of the picture; each is the mean over its cycles."""


def draw(path: Path, accounts: list[tuple[str, CycleAccount]]) -> None:
    """Write a picture of the passes, one below the other.

    Raises :class:`HostError` for a file name whose ending is no picture's.
    """
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [_lines(account) for _, account in accounts]
    heights = [len(found) for found in lines]
    figure, axes = pyplot.subplots(len(accounts), 1, figsize=(13, 0.8 * len(accounts) + 0.27 * sum(heights)),
                                   squeeze=False, height_ratios=heights, layout="constrained")
    for axis, (title, account), found in zip(axes[:, 0], accounts, lines):
        edges = np.linspace(0, account.cycles, min(WINDOWS, account.cycles) + 1).astype(int)
        image = np.ones((len(found), len(edges) - 1, 3))
        for n, (_, busy, waits) in enumerate(found):
            work, wait = _means(busy, edges)[:, None], _means(waits, edges)[:, None]
            image[n] = 1 - work * (1 - np.array([0.12, 0.36, 0.58])) - wait * (1 - np.array([0.96, 0.65, 0.35]))
        axis.imshow(image.clip(0, 1), aspect="auto", interpolation="nearest",
                    extent=(0, account.cycles, len(found) - 0.5, -0.5))
        axis.set_yticks(range(len(found)), [name for name, _, _ in found], fontsize=8)
        axis.set_yticks(np.arange(0.5, len(found) - 1), minor=True)
        axis.grid(which="minor", axis="y", color="white", linewidth=2)
        axis.tick_params(which="minor", left=False)
        axis.set_title(f"{title}; {account.cycles:,} cycles (blue: works, orange: stalls)", fontsize=9, loc="left")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes[-1, 0].set_xlabel("cycles")
    try:
        figure.savefig(path, dpi=110)
    except ValueError as error:
        raise HostError(f"{path} can't be drawn: {error}") from None
    finally:
        pyplot.close(figure)


def _lines(account: CycleAccount) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, cycles of work and cycles of stalls of every unit that did something, and of the ports."""
    found = []
    for unit in account.units:
        works = np.logical_or.reduce([s.cycles for s in unit.states if s.works] or [np.zeros(account.cycles, bool)])
        if works.any():
            waits = np.logical_or.reduce([s.cycles for s in unit.states if s.stalls]
                                         or [np.zeros(account.cycles, bool)])
            found.append((unit.name, works, waits))
    for p, port in enumerate(account.ports):
        moves = account.port_bit(p, PortBit.READ_BEAT) | account.port_bit(p, PortBit.WRITE_BEAT)
        paced = account.port_bit(p, PortBit.READ_PACED) | account.port_bit(p, PortBit.WRITE_PACED)
        found.append((port.name, moves, paced & ~moves))
    return found


def _means(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    sums = np.concatenate([[0], np.cumsum(values)])
    return np.diff(sums[edges]) / np.maximum(1, np.diff(edges))
