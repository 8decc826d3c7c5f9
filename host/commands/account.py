"""account: where the cycles of one prompt pass and one decode pass go, by unit, by memory port and by cause."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from host.accelerator import Accelerator, Group, Row
from host.commands.common import add_target, positive, target_of, zero_or_more
from host.cycle_account import CycleAccount, UnitAccount
from host.devices.open import open_accelerator
from host.devices.verilator import VerilatorDevice
from host.errors import HostError
from host.sequences import SequencePool
from rtl.contract.pass_descriptor import RowFlag

HELP = "show where the cycles of a pass go"
TRACE_CYCLES = 1 << 26
"""A gigabyte if they were all used; memory is taken as the trace grows."""


@dataclass(frozen=True)
class PassShape:
    """``sequences`` × ``rows`` rows, each sequence behind ``past`` positions."""

    name: str
    sequences: int
    rows: int
    past: int

    def __str__(self) -> str:
        of = f"{self.sequences} sequences × {self.rows}" if self.sequences > 1 else f"{self.rows}"
        return f"{self.name}: {of} row{'s' * (self.rows * self.sequences > 1)} behind {self.past} positions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--past", type=zero_or_more, action="append", metavar="N",
                        help="positions that are in the KV cache already; may be repeated (default: 0)")
    parser.add_argument("--pass", choices=("both", "prompt", "decode"), default="both", dest="which",
                        help="which pass (default: %(default)s)")
    parser.add_argument("--rows", type=positive, metavar="N",
                        help="rows of the prompt pass (default: as many as the model runs)")
    parser.add_argument("--sequences", type=positive, default=1, metavar="N",
                        help="sequences that decode together, a row each (default: %(default)s)")
    parser.add_argument("--no-head", action="store_true", help="passes that want no logits")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw which unit is busy when (PNG, SVG, PDF)")


def run(arguments: argparse.Namespace) -> None:
    if arguments.device != "verilator":
        raise HostError("only the simulated RTL has cycles to account for; use --device verilator")
    accelerator = open_accelerator(target_of(arguments))
    console = Console()
    done = []
    for shape in _shapes(arguments, accelerator):
        account = measure(accelerator, shape, head=not arguments.no_head)
        show(console, accelerator, shape, account)
        done.append((shape, account))
    if arguments.picture:
        from host.account_picture import draw
        draw(arguments.picture, [(str(shape), account) for shape, account in done])


def _shapes(arguments: argparse.Namespace, accelerator: Accelerator) -> Iterator[PassShape]:
    for past in arguments.past or [0]:
        if arguments.which != "decode":
            yield PassShape("prompt", 1, arguments.rows or accelerator.max_rows, past)
        if arguments.which != "prompt":
            yield PassShape("decode", arguments.sequences, 1, past)


def measure(accelerator: Accelerator, shape: PassShape, head: bool = True) -> CycleAccount:
    """Trace one pass of that shape, behind another one, so that its first weights are there as in a series of passes.

    The past is not computed: random bytes lie in its place, which takes the same cycles.
    """
    device = accelerator.device
    if not isinstance(device, VerilatorDevice):
        raise HostError("only the simulated RTL has cycles to account for")
    pool, rng = SequencePool(accelerator), np.random.default_rng(1)
    vocabulary = accelerator.manifest.vocabulary
    groups = []
    for _ in range(shape.sequences):
        sequence = pool.open()
        pool.reserve(sequence, shape.past + shape.rows)
        for block in sequence.blocks:
            _fill_block(accelerator, block, rng)
        tokens = rng.integers(0, vocabulary, shape.rows)
        flags = [RowFlag.ARGMAX if head and n == shape.rows - 1 else RowFlag(0) for n in range(shape.rows)]
        groups.append(Group(sequence.slot, shape.past, [Row(int(t), f) for t, f in zip(tokens, flags)],
                            sequence.blocks))
    first = groups[0]
    accelerator.run([Group(first.slot, 0, [Row(0)], first.blocks)])
    device.run_cycles(2 * accelerator.params.ring_words)  # as long as the host samples, the rings fill
    device.begin_trace(TRACE_CYCLES)
    accelerator.run(groups)
    activity, ports = device.end_trace()
    if len(activity) == TRACE_CYCLES:
        raise HostError(f"the pass takes more than {TRACE_CYCLES:,} cycles, which is all that a trace holds")
    return CycleAccount(activity, ports)


def _fill_block(accelerator: Accelerator, block: int, rng: np.random.Generator) -> None:
    size = accelerator.manifest.block_beats * accelerator.params.port_bytes
    for base in accelerator.map.kv.bases:
        accelerator.device.write_memory(base + block * size, rng.integers(0, 256, size, np.uint8))


# ---- output ----------------------------------------------------------------------------------------------------------


def show(console: Console, accelerator: Accelerator, shape: PassShape, account: CycleAccount) -> None:
    device = accelerator.device
    assert isinstance(device, VerilatorDevice)
    seconds = account.cycles / device.clock_hz
    rows = shape.rows * shape.sequences
    console.rule(str(shape))
    console.print(f"{account.cycles:,} cycles: {1e3 * seconds:,.3f} ms, {rows / seconds:,.1f} tokens/s at "
                  f"{device.clock_hz / 1e6:.0f} MHz")
    rates = [device.beats_per_cycle(p) for p in range(accelerator.params.ports)]
    least = account.busiest_port_cycles(rates)
    console.print(f"its beats take the memory {least:,.0f} cycles at least ({least / account.cycles:.1%})\n")
    _table(console, "the pass", [account.causes], account.cycles)
    _table(console, "units", account.units, account.cycles)
    _table(console, "memory ports", account.ports, account.cycles)


def _table(console: Console, title: str, units: list[UnitAccount], cycles: int) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name, justify in (("", "left"), ("", "left"), ("cycles", "right"), ("share", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for unit in units:
        name = unit.name
        for state in unit.states:
            if state.count:
                table.add_row(name, state.name, f"{state.count:,}", f"{state.count / cycles:.1%}")
                name = ""
    console.print(table)
    console.print()
