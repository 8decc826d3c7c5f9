"""From a board, a model and a device's name to a loaded accelerator; `tellme-hls` finds or makes what that needs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from host.accelerator import Accelerator
from host.board import Board, read_board
from host.devices.golden import GoldenDevice
from host.devices.verilator import VerilatorDevice
from host.errors import HostError

if TYPE_CHECKING:
    from hls_py.golden.machine.precision import Precision

DEVICES = ("verilator", "golden")


@dataclass(frozen=True)
class Target:
    """What the user asked for."""

    device: str
    model: Path
    board: str | None = None
    memory: str | None = None
    cache: Path | None = None
    context: int | None = None
    quiet: bool = False
    i2s_layout: str | None = None
    float_parts: tuple[str, ...] = ()
    """What the golden model computes in float instead of the hardware's int8."""


def open_accelerator(target: Target) -> Accelerator:
    """Raises :class:`HostError` with `tellme-hls`'s own line when something can't be made."""
    found = _prepare(target)
    board = read_board(Path(found["board"]), target.memory)
    device = _device(target, board, found)
    return Accelerator(device, Path(found["image"]), target.context)


def _device(target: Target, board: Board, found: dict[str, str]) -> GoldenDevice | VerilatorDevice:
    if target.device == "verilator":
        return VerilatorDevice(Path(found["simulator"]), board)
    golden = GoldenDevice(board.params, board.memory_bytes, board.port_offsets, _precision(target))
    golden.clock_hz = board.clock_hz
    return golden


def _precision(target: Target) -> Precision | None:
    if not target.float_parts:
        return None
    from hls_py.golden.machine.precision import Precision

    return Precision.of_model(target.float_parts, target.model, target.i2s_layout)


def _prepare(target: Target) -> dict[str, str]:
    command = [sys.executable, "-m", "hls_py.cli", "prepare", "--device", target.device, "--model", str(target.model)]
    if target.board:
        command += ["--board", target.board]
    if target.cache:
        command += ["--cache", str(target.cache)]
    if target.i2s_layout:
        command += ["--i2s-layout", target.i2s_layout]
    if target.quiet:
        command.append("--quiet")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True)
    if done.returncode > 0:
        raise HostError("")  # tellme-hls has said why
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise HostError(f"tellme-hls prepare ended without a result (status {done.returncode}); "
                        "run it by itself to see more") from None
