"""bench: cycles of prompt and decode passes from the design's counters, and the simulation's own speed."""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from host.commands.common import add_target, positive, target_of
from host.devices.open import open_accelerator
from host.errors import HostError
from host.sequences import SequencePool
from rtl.contract import register_map
from rtl.contract.pass_descriptor import RowFlag

HELP = "measure cycles and simulation speed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--past", type=positive, default=64, metavar="N",
                        help="tokens of the measured prompt (default: %(default)s)")
    parser.add_argument("--passes", type=positive, default=8, metavar="N",
                        help="decode passes measured behind it (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    accelerator = open_accelerator(target_of(arguments))
    if arguments.past + arguments.passes > accelerator.max_context:
        raise HostError(f"--past and --passes need {arguments.past + arguments.passes} positions, the context has "
                        f"{accelerator.max_context}")
    device = accelerator.device
    pool = SequencePool(accelerator)
    sequence = pool.open()
    rng = np.random.default_rng(1)
    table = Table(title=f"cycles on {accelerator.params.rows} rows, {accelerator.params.ports} ports of "
                        f"{accelerator.params.port_bytes} bytes")
    table.add_column("counter")
    columns = []
    vocabulary = accelerator.manifest.vocabulary
    for name, tokens, passes in (("prompt", arguments.past, 1), ("decode", 1, arguments.passes)):
        device.write_register(register_map.address("COUNTERS_CLEAR"), 1)
        begin, cycles = time.monotonic(), getattr(device, "cycles", 0)
        for _ in range(passes):
            pool.feed(sequence, rng.integers(0, vocabulary, tokens).tolist(), last=RowFlag.ARGMAX)
        seconds = time.monotonic() - begin
        counted = accelerator.counters()
        count = tokens * passes
        table.add_column(f"{name}: {count} tokens, per token", justify="right")
        rate = (getattr(device, "cycles", 0) - cycles) / seconds
        columns.append({k: v / count for k, v in counted.items()}
                       | {f"simulated cycles/s ({os.cpu_count()} cores, one used)": rate})
    for key in columns[0]:
        table.add_row(key.lower(), *[f"{c[key]:,.0f}" for c in columns])
    Console().print(table)
