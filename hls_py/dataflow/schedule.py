"""When each cell computes, and on which operator: modulo list scheduling.

A word enters every ``ii`` cycles, so a cell that starts in cycle t of a word occupies its operator in every cycle that
equals t modulo ii, and an operator serves up to ii cells. Each kind gets as few operators as that allows.
"""

import heapq
from dataclasses import dataclass

from hls_py.dataflow.cells import Cell

MAX_LEVELS = 6
"""Deepest logic between two registers (250 MHz on UltraScale+)."""


@dataclass(frozen=True)
class Schedule:
    """Cycles from a word's acceptance.

    start     : cycle in which a cell takes its operands.
    available : cycle in which its value stands (later for a unit).
    levels    : logic depth behind a register at that point.
    operator  : (unit's key, number) of the operator a unit cell runs on.
    """

    start: list[int]
    available: list[int]
    levels: list[int]
    operator: dict[int, tuple[tuple, int]]
    operator_count: dict[tuple, int]


def schedule(cells: list[Cell], ii: int) -> Schedule:
    """As soon as possible; cells with the longest way to go choose their operators first."""
    height = _heights(cells)
    count: dict[tuple, int] = {}
    for cell in cells:
        if cell.unit:
            count[cell.unit.key] = count.get(cell.unit.key, 0) + 1
    operators = {key: -(-number // ii) for key, number in count.items()}
    is_shared = {key: number > operators[key] for key, number in count.items()}
    busy: dict[tuple, list[set[int]]] = {key: [set() for _ in range(number)] for key, number in operators.items()}

    start, available, levels = ([0] * len(cells) for _ in range(3))
    operator: dict[int, tuple[tuple, int]] = {}
    consumers: list[list[int]] = [[] for _ in cells]
    missing = [len(set(cell.inputs)) for cell in cells]
    for cell in cells:
        for operand in set(cell.inputs):
            consumers[operand].append(cell.index)
    ready = [(-height[cell.index], cell.index) for cell in cells if not cell.inputs]
    heapq.heapify(ready)
    while ready:
        index = heapq.heappop(ready)[1]
        cell = cells[index]
        operands = [i for i in cell.inputs if not cells[i].is_constant]
        time = max((available[i] for i in operands), default=0)
        depth = max((levels[i] for i in operands if available[i] == time), default=0)
        if cell.unit:
            key = cell.unit.key
            if depth + cell.unit.levels + is_shared[key] > MAX_LEVELS:
                time += 1
            number, time = _free(busy[key], time, ii)
            busy[key][number].add(time % ii)
            operator[index] = (key, number)
            start[index], available[index], levels[index] = time, time + cell.unit.latency_cycles, 0
        else:
            if depth + cell.levels > MAX_LEVELS:
                time, depth = time + 1, 0
            start[index], available[index], levels[index] = time, time, depth + cell.levels
        for consumer in consumers[index]:
            missing[consumer] -= 1
            if not missing[consumer]:
                heapq.heappush(ready, (-height[consumer], consumer))
    return Schedule(start, available, levels, operator, operators)


def _free(operators: list[set[int]], time: int, ii: int) -> tuple[int, int]:
    """Operator and first cycle from ``time`` on in which one is free; the fullest that is, so that few get muxes."""
    for delay in range(ii):
        phase = (time + delay) % ii
        candidates = [number for number, taken in enumerate(operators) if phase not in taken]
        if candidates:
            return max(candidates, key=lambda n: (len(operators[n]), -n)), time + delay
    raise AssertionError("more cells than operators hold")


def _heights(cells: list[Cell]) -> list[int]:
    """Cycles (in levels) from each cell to the farthest result."""
    height = [0] * len(cells)
    for cell in reversed(cells):
        own = cell.unit.latency_cycles * MAX_LEVELS if cell.unit else cell.levels
        for operand in cell.inputs:
            height[operand] = max(height[operand], height[cell.index] + own)
    return height
