"""Records of a pass's extents, in consumption order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hls_py.golden.machine.memory import Memory, Striped
from hls_py.golden.machine.passes import Extent, StopError
from rtl.contract.design_params import DesignParams
from rtl.contract.register_map import ErrorCause
from rtl.contract.stream_records import MAGIC, RECORD_HEADER, Destination, record_crc

Key = tuple[int, bytes, tuple[int, ...]]
"""Address and header of a record, and how its consumer reads it."""


@dataclass(frozen=True)
class Record:
    """``payload`` is None where the consumer has made its own of it before; see :meth:`WeightStream.next`."""

    flags: int
    key: Key
    payload: np.ndarray | None


class WeightStream:
    """Reads record after record; ``made`` holds what consumers made of records whose CRC was found right.

    It stays true as long as nobody writes over the stream.
    """

    def __init__(self, memory: Memory, extents: list[Extent], params: DesignParams, made: dict[Key, Any]):
        self.memory, self.extents, self.params, self.made = memory, extents, params, made
        self.extent, self.beat, self.sequence = 0, 0, 0

    def _spans(self, count: int) -> list[tuple[Extent, int, int]]:
        """(extent, first beat, beats) of the next beats, over extents' ends; moves on behind them."""
        spans = []
        while count:
            if self.extent >= len(self.extents):
                raise StopError(ErrorCause.WATCHDOG, 0, "the program asks for more of the stream than the extents hold")
            here = self.extents[self.extent]
            take = min(count, here.beats - self.beat)
            spans.append((here, self.beat, take))
            self.beat += take
            count -= take
            if self.beat == here.beats:
                self.extent, self.beat = self.extent + 1, 0
        return spans

    def _read(self, spans: list[tuple[Extent, int, int]]) -> np.ndarray:
        try:
            parts = [Striped(self.memory, extent.bases, self.params.port_bytes).read(first, count)
                     for extent, first, count in spans]
        except ValueError as error:
            raise StopError(ErrorCause.READ_ERROR, 0, str(error)) from None
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def peek_destination(self) -> Destination | None:
        """Destination of the next record, None at the end of the extents."""
        if self.extent >= len(self.extents):
            return None
        mark = self.extent, self.beat, self.sequence
        header = self._header()[0]
        self.extent, self.beat, self.sequence = mark
        return Destination(int(header["destination"]))

    def _header(self) -> tuple[dict[str, int | float], bytes]:
        raw = self._read(self._spans(1)).tobytes()
        header = RECORD_HEADER.unpack(raw)
        if header["magic"] != MAGIC:
            raise StopError(ErrorCause.RECORD_MAGIC, self.sequence)
        if header["destination"] not in list(Destination) or not header["beats"]:
            raise StopError(ErrorCause.RECORD_FRAMING, int(header["sequence"]))
        self.sequence = int(header["sequence"]) + 1
        return header, raw

    def next(self, destination: Destination, beats: int | None = None, form: tuple[int, ...] = ()) -> Record:
        """The next record; ``form`` becomes part of its key.

        Raises :class:`StopError` when it is for another destination, has another length, or its CRC fails. Who puts
        something under its key into ``made`` doesn't get its payload again.
        """
        key_address = self.extents[self.extent].bases[0] + self.beat * self.params.port_bytes
        header, raw = self._header()
        if header["destination"] != destination or (beats is not None and header["beats"] != beats):
            raise StopError(ErrorCause.RECORD_FRAMING, int(header["sequence"]))
        spans = self._spans(int(header["beats"]))
        key = (key_address, raw[:16], form)
        if key in self.made:
            return Record(int(header["flags"]), key, None)
        payload = self._read(spans)
        if record_crc(raw, payload.tobytes()) != header["crc"]:
            raise StopError(ErrorCause.RECORD_CRC, int(header["sequence"]))
        return Record(int(header["flags"]), key, payload)
