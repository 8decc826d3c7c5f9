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
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        name = memory or raw["memory"]
        if name not in raw["memories"]:
            raise HostError(f"board {raw['name']} has no memory model {name!r}; it has {', '.join(raw['memories'])}")
        model = raw["memories"][name]
        return Board(raw["name"], float(raw["clock_hz"]), DesignParams.from_dict(raw["design"]), raw["memory_bytes"],
                     tuple(model["start_offsets_bytes"]), tuple(model["ports"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HostError(f"{path} can't be read as a board ({error!r}); generate it again") from None
