"""A packed model on a device, ready to be fed; for end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hls_py.boards import RATE_UNIT, Board, MemoryModel, PortTiming, load_board
from hls_py.cache import Cache
from hls_py.emit.verilator import build_root
from hls_py.model_import.model import Model
from hls_py.packing.image import pack
from hls_py.progress import Progress
from host.accelerator import Accelerator
from host.board import read_board
from host.devices.golden import GoldenDevice
from host.devices.verilator import VerilatorDevice
from host.sequences import Sequence, SequencePool, logits_of
from rtl.contract.design_params import DesignParams
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.models import TinyModel


def small_design(**changes: object) -> DesignParams:
    """A design that holds TinyModels; ``changes`` are DesignParams fields."""
    defaults: dict[str, object] = dict(
        rows=4, tables=5, outputs=3, vector_lanes=4, row_vectors=4, ports=2, port_bytes=16, rows_per_builder=2,
        max_hidden=320, max_inner=512, max_kv_width=512, max_head_dim=128, max_row_vectors=64, tile_steps=128,
        drain_steps=256, ring_words=256, burst_beats=16, top_k=8)
    return DesignParams(**{**defaults, **changes})  # type: ignore[arg-type]


def plain_board(params: DesignParams, memory_bytes: int = 64 << 20) -> Board:
    """A board for ``params`` whose ports are alike: full width, the latency and refreshes of DDR4."""
    timing = PortTiming(RATE_UNIT, read_latency_cycles=40, write_latency_cycles=20, refresh_interval_cycles=1950,
                        refresh_cycles=24, turnaround_cycles=0, outstanding_reads=16, outstanding_writes=16)
    memory = MemoryModel("ports alike", (timing,) * params.ports, (0,) * params.ports)
    return Board("plain", "for tests", None, 250_000_000, None, tuple(f"p{n}" for n in range(params.ports)), params,
                 memory_bytes, "plain", {"plain": memory})


def golden_machine(model: Path, params: DesignParams, folder: Path, memory_bytes: int = 16 << 20) -> Accelerator:
    """``model`` packed for ``params`` into ``folder`` and loaded to a golden device."""
    pack(Model(model), params, folder, progress=False)
    return Accelerator(GoldenDevice(params, memory_bytes), folder)


def simulated_machine(model: Path, board: Board, folder: Path, memory_bytes: int = 64 << 20) -> Accelerator:
    """``model`` packed for ``board``'s design into ``folder`` and loaded to its RTL under Verilator (compiled once)."""
    pack(Model(model), board.params, folder, progress=False)
    return Accelerator(simulated_device(board, memory_bytes), folder)


def both_machines(model: TinyModel, folder: Path) -> tuple[Accelerator, Accelerator]:
    """(RTL, golden) of the demo design with ``model``."""
    board = load_board()
    model.write(folder / "model")
    return (simulated_machine(folder / "model", board, folder / "rtl"),
            golden_machine(folder / "model", board.params, folder / "golden", 64 << 20))


def simulated_device(board: Board, memory_bytes: int = 64 << 20) -> VerilatorDevice:
    """The RTL of ``board``'s design, its memory as the board's default memory model."""
    cache = Cache(build_root(), Progress(quiet=True))
    description = read_board(cache.board(board))
    return VerilatorDevice(cache.simulator(board.params, cache.design(board.params)), description, memory_bytes)


def check_rules(machine: Accelerator) -> None:
    """The design broke no AXI rule and never left the memory."""
    device = machine.device
    assert isinstance(device, VerilatorDevice)
    assert not device.violation
    assert device.get(-1, "decode_errors") == 0


def all_logits(machine: Accelerator, tokens: list[int], rows_per_pass: int | None = None) -> np.ndarray:
    """float32 [n, vocabulary]: teacher-forced logits of a new sequence."""
    pool = SequencePool(machine)
    return logits_of(pool.feed(pool.open(), tokens, every=RowFlag.LOGITS, rows_per_pass=rows_per_pass))


__all__ = ["Sequence", "SequencePool", "all_logits", "both_machines", "check_rules", "golden_machine", "plain_board",
           "simulated_device", "simulated_machine", "small_design"]
