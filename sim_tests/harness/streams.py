"""Drive and watch Amaranth streams from cocotb, with chosen stalls.

    await reset(dut)                                          # sim_tests.harness.bench
    cocotb.start_soon(send(dut, "logits", payloads, stalls(0.5, seed)))
    tokens = await receive(dut, "token", count, stalls(0.5, seed + 1))

A stream member ``x`` of a component is the signals ``x__valid``, ``x__ready``, ``x__payload``. Payloads are Python
integers here, laid out as in hardware; ``sim_tests.harness.payload`` packs and unpacks fields.
"""

import random
from collections.abc import Iterable, Iterator

from cocotb.triggers import ReadOnly, RisingEdge
from cocotb.utils import get_sim_time

CLOCK_NS = 4
ADDRESS_VARIABLE = "TELLME_COCOTB_ADDRESS"
"""Where a simulation finds who holds it (``sim_tests.harness.cocotb_simulation``)."""
_PARTS = ("valid", "ready", "payload")


def stalls(probability: float, seed: int) -> Iterator[bool]:
    """Endless booleans: True where this side stalls in a cycle."""
    rng = random.Random(seed)
    while True:
        yield rng.random() < probability


def cycle() -> int:
    """Number of the current clock cycle since the simulation began."""
    return round(get_sim_time("ns") / CLOCK_NS)


async def send(dut, stream: str, payloads: Iterable[int], stall: Iterator[bool] | None = None,
               cycles: list[int] | None = None) -> list[int]:
    """Send ``payloads`` in order, idling where ``stall`` says so; returns the cycle in which each was taken.

    The cycles are appended to ``cycles`` as time goes by, if it is given.
    """
    clk, valid, ready, payload = dut.clk, *(getattr(dut, f"{stream}__{part}") for part in _PARTS)
    taken_in = [] if cycles is None else cycles
    for item in payloads:
        while stall is not None and next(stall):
            valid.value = 0
            await RisingEdge(clk)
        valid.value = 1
        payload.value = item
        while True:
            await ReadOnly()
            taken = ready.value == 1
            await RisingEdge(clk)
            if taken:
                taken_in.append(cycle())
                break
    valid.value = 0
    return taken_in


async def receive(dut, stream: str, count: int, stall: Iterator[bool] | None = None,
                  cycles: list[int] | None = None, taken: list[int] | None = None) -> list[int]:
    """Take ``count`` payloads, withholding ready where ``stall`` says so.

    Each is appended to ``taken``, and its cycle to ``cycles``, as time goes by, if they are given.

    Also checks the stream contract: once valid, a payload stays offered and unchanged until it is taken.
    """
    clk, valid, ready, payload = dut.clk, *(getattr(dut, f"{stream}__{part}") for part in _PARTS)
    taken = [] if taken is None else taken
    offered = None
    while len(taken) < count:
        take = not (stall is not None and next(stall))
        ready.value = int(take)
        await ReadOnly()
        if valid.value == 1:
            item = int(payload.value)
            assert offered in (None, item), f"{stream}: payload changed from {offered:#x} to {item:#x} while not ready"
            offered = None if take else item
            if take:
                taken.append(item)
        else:
            assert offered is None, f"{stream}: valid fell before the payload was taken"
        await RisingEdge(clk)
        if take and cycles is not None and len(cycles) < len(taken):
            cycles.append(cycle())
    ready.value = 0
    return taken
