"""The ternary products of a pass, and which of them are drained together.

A matrix is as many tiles as the accumulators need, each with a TILE and a DRAIN. Golden holds drains back until another
command wants to see what came of them; neighbours that are drained alike are one array then. The work is element-wise,
so its bits are the same however the columns are cut, and NumPy likes few, large arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hls_py.golden.machine.passes import StopError
from hls_py.golden.ternary_matmul.engine import matmul_weights
from rtl.contract.command_words import DrainMode
from rtl.contract.register_map import ErrorCause

Fields = dict[str, int]

SAME = ("mode", "function", "head_dim", "scale", "scale2")
"""Fields that neighbours have in common."""


@dataclass
class Drain:
    """Neighbouring tiles that are drained alike.

    ``fields`` are the first command's; outputs go to elements ``first`` … ``last`` − 1 (of heads: padded ones). Each
    part is the sums int32 [R, outputs] of a tile, or of a gate and an up tile.
    """

    fields: Fields
    activation_scale: np.ndarray
    first: int
    last: int
    parts: list[list[np.ndarray]]

    @property
    def sums(self) -> list[np.ndarray]:
        """int32 [R, last − first] of the tiles, or of gates and of ups."""
        return [np.concatenate(tiles, axis=1) if len(tiles) > 1 else tiles[0] for tiles in zip(*self.parts)]

    def takes(self, other: Drain) -> bool:
        """Whether ``other`` goes on where this ends; it is taken in then."""
        goes_on = (other.first == self.last and other.activation_scale is self.activation_scale
                   and all(self.fields[name] == other.fields[name] for name in SAME))
        if goes_on:
            self.parts += other.parts
            self.last = other.last
        return goes_on


class Products:
    """Sums that are not drained yet, and drains whose results nobody has asked for yet."""

    def __init__(self) -> None:
        self.tiles: list[np.ndarray] = []
        self.drains: list[Drain] = []

    def multiply(self, weights: np.ndarray, activations: np.ndarray) -> None:
        """A TILE: weights int8 [N, K'], activations int8 [R, K]."""
        self.tiles.append(matmul_weights(weights, activations))

    def drain(self, fields: Fields, activation_scale: np.ndarray, first: int) -> None:
        """A DRAIN of the oldest tile, or of two of them; raises :class:`StopError` where the hardware would wait."""
        count = 2 if fields["mode"] == DrainMode.GATED else 1
        taken, self.tiles = self.tiles[:count], self.tiles[count:]
        if len(taken) < count:
            raise StopError(ErrorCause.WATCHDOG, 0, "a drain waits for sums that don't come")
        outputs = fields["outputs"]
        new = Drain(fields, activation_scale, first, first + outputs, [[sums[:, :outputs] for sums in taken]])
        if not any(drain.takes(new) for drain in self.drains):  # tiles of keys and values take turns
            self.drains.append(new)

    def drained(self) -> list[Drain]:
        """What has been drained since the last call."""
        drains, self.drains = self.drains, []
        return drains
