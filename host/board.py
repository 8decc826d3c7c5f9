"""board.json as the runtime reads it: clock, memory, and how the memory answers the ports in simulation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.errors import HostError
from rtl.contract.design_params import DesignParams


@dataclass(frozen=True)
class Board:
    """What is needed of a board at run time; ``ports`` are settings of the simulator, one mapping a port."""

    name: str
    clock_hz: float
    params: DesignParams
    memory_bytes: int
    port_offsets: tuple[int, ...]
    ports: tuple[dict[str, int], ...]


def read_board(path: Path, memory: str | None = None) -> Board:
    """``memory`` chooses one of the board's memory models; None: its default.

    Raises :class:`HostError` for a file that is no board.json, or an unknown memory model.
    """
    try:
        board, known = _board(json.loads(path.read_text(encoding="utf-8")), memory)
    except OSError as error:
        raise HostError(f"{path} can't be read as a board ({error.strerror}); generate it again") from None
    except KeyError as error:
        raise HostError(f"{path} can't be read as a board (it has no {error}); generate it again") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise HostError(f"{path} can't be read as a board ({error}); generate it again") from None
    if board is None:
        raise HostError(f"the board has no memory model {memory!r}; it has {', '.join(known)}")
    return board


def _board(raw: dict[str, Any], memory: str | None) -> tuple[Board | None, list[str]]:
    """The board, or None where it has no such memory model, and the models that it has."""
    known = list(raw["memories"])
    name = memory or raw["memory"]
    if memory and name not in known:
        return None, known
    model = raw["memories"][name]
    params = DesignParams.from_dict(raw["design"])
    offsets, ports, size = model["start_offsets_bytes"], model["ports"], raw["memory_bytes"]
    if type(size) is not int or size < 1:
        raise ValueError(f"memory_bytes is {size!r}")
    if len(offsets) != params.ports or len(ports) != params.ports:
        raise ValueError(f"memory model {name!r} isn't for {params.ports} ports")
    settings = tuple({str(k): int(v) for k, v in port.items()} for port in ports)
    board = Board(str(raw["name"]), float(raw["clock_hz"]), params, size, tuple(int(o) for o in offsets), settings)
    return board, known
