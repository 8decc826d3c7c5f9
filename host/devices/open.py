"""From a board, a model and a device's name to a loaded accelerator; `tellme-hls` finds or makes what that needs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from host.accelerator import Accelerator
from host.board import Board, read_board
from host.devices.golden import GoldenDevice
from host.devices.verilator import VerilatorDevice
from host.errors import HostError

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


def open_accelerator(target: Target) -> Accelerator:
    """Raises :class:`HostError` with `tellme-hls`'s own line when something can't be made."""
    found = _prepare(target)
    board = read_board(Path(found["board"]), target.memory)
    device = _device(target.device, board, found)
    return Accelerator(device, Path(found["image"]), target.context)


def _device(name: str, board: Board, found: dict[str, str]) -> GoldenDevice | VerilatorDevice:
    if name == "verilator":
        return VerilatorDevice(Path(found["simulator"]), board)
    golden = GoldenDevice(board.params, board.memory_bytes, board.port_offsets)
    golden.clock_hz = board.clock_hz
    return golden


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
