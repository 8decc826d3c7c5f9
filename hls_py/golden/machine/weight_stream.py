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
class Header:
    """A record's first beat: ``address`` on port 0, its fields, its bytes."""

    address: int
    fields: dict[str, int | float]
    raw: bytes


@dataclass(frozen=True)
class Record:
    """``payload`` is None where the consumer has made its own of it before; see :meth:`WeightStream.next`."""

    flags: int
    key: Key
    payload: np.ndarray | None


class Remembered:
    """Headers by extent and beat, and what consumers made of records whose CRC was found right.

    It stays true as long as nobody writes over the stream.
    """

    def __init__(self) -> None:
        self.headers: dict[tuple[tuple[int, ...], int], Header] = {}
        self.made: dict[Key, Any] = {}


class WeightStream:
    """Reads record after record."""

    def __init__(self, memory: Memory, extents: list[Extent], params: DesignParams, remembered: Remembered):
        self.memory, self.extents, self.params, self.remembered = memory, extents, params, remembered
        self.extent, self.beat, self.sequence = 0, 0, 0
        self._read_ahead: Header | None = None

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
        if self._read_ahead is None and self.extent >= len(self.extents):
            return None
        return Destination(int(self._header().fields["destination"]))

    def _header(self) -> Header:
        """The next record's; the stream stands behind it then."""
        if self._read_ahead is None:
            (extent, beat, _), = spans = self._spans(1)
            header = self.remembered.headers.get((extent.bases, beat))
            if header is None:
                raw = self._read(spans).tobytes()
                header = Header(extent.bases[0] + beat * self.params.port_bytes, RECORD_HEADER.unpack(raw), raw)
                self._check(header)
                self.remembered.headers[extent.bases, beat] = header
            self.sequence = int(header.fields["sequence"]) + 1
            self._read_ahead = header
        return self._read_ahead

    def _check(self, header: Header) -> None:
        if header.fields["magic"] != MAGIC:
            raise StopError(ErrorCause.RECORD_MAGIC, self.sequence)
        if header.fields["destination"] not in list(Destination) or not header.fields["beats"]:
            raise StopError(ErrorCause.RECORD_FRAMING, int(header.fields["sequence"]))

    def next(self, destination: Destination, beats: int | None = None, form: tuple[int, ...] = ()) -> Record:
        """The next record; ``form`` becomes part of its key.

        Raises :class:`StopError` when it is for another destination, has another length, or its CRC fails. Who puts
        something under its key into ``remembered.made`` doesn't get its payload again.
        """
        header, self._read_ahead = self._header(), None
        sequence, length = int(header.fields["sequence"]), int(header.fields["beats"])
        if header.fields["destination"] != destination or (beats is not None and length != beats):
            raise StopError(ErrorCause.RECORD_FRAMING, sequence)
        spans = self._spans(length)
        key = (header.address, header.raw[:16], form)
        flags = int(header.fields["flags"])
        if key in self.remembered.made:
            return Record(flags, key, None)
        payload = self._read(spans)
        if record_crc(header.raw, payload.tobytes()) != header.fields["crc"]:
            raise StopError(ErrorCause.RECORD_CRC, sequence)
        return Record(flags, key, payload)
