"""Records of a pass's extents, in consumption order."""

from __future__ import annotations

import numpy as np

from hls_py.golden.machine.memory import Memory, Striped
from hls_py.golden.machine.passes import Extent, StopError
from rtl.contract.design_params import DesignParams
from rtl.contract.register_map import ErrorCause
from rtl.contract.stream_records import MAGIC, RECORD_HEADER, Destination, record_crc


class WeightStream:
    """Reads record after record; ``verified`` remembers (address, header) pairs whose CRC was already found right."""

    def __init__(self, memory: Memory, extents: list[Extent], params: DesignParams,
                 verified: dict[tuple[int, bytes], object]):
        self.memory, self.extents, self.params, self.verified = memory, extents, params, verified
        self.extent, self.beat, self.sequence = 0, 0, 0

    def _beats(self, count: int) -> np.ndarray:
        """The next beats, over extents' ends."""
        parts = []
        while count:
            if self.extent >= len(self.extents):
                raise StopError(ErrorCause.WATCHDOG, 0, "the program asks for more of the stream than the extents hold")
            here = self.extents[self.extent]
            take = min(count, here.beats - self.beat)
            try:
                parts.append(Striped(self.memory, here.bases, self.params.port_bytes).read(self.beat, take))
            except ValueError as error:
                raise StopError(ErrorCause.READ_ERROR, 0, str(error)) from None
            self.beat += take
            count -= take
            if self.beat == here.beats:
                self.extent, self.beat = self.extent + 1, 0
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
        raw = self._beats(1).tobytes()
        header = RECORD_HEADER.unpack(raw)
        if header["magic"] != MAGIC:
            raise StopError(ErrorCause.RECORD_MAGIC, self.sequence)
        if header["destination"] not in list(Destination) or not header["beats"]:
            raise StopError(ErrorCause.RECORD_FRAMING, int(header["sequence"]))
        self.sequence = int(header["sequence"]) + 1
        return header, raw

    def next(self, destination: Destination, beats: int | None = None) -> tuple[np.ndarray, int, tuple[int, bytes]]:
        """(payload [beats, beat_bytes], flags, cache key) of the next record.

        Raises :class:`StopError` when it is for another destination, has another length, or its CRC fails.
        """
        key_address = self.extents[self.extent].bases[0] + self.beat * self.params.port_bytes
        header, raw = self._header()
        if header["destination"] != destination or (beats is not None and header["beats"] != beats):
            raise StopError(ErrorCause.RECORD_FRAMING, int(header["sequence"]))
        payload = self._beats(int(header["beats"]))
        key = (key_address, raw[:16])
        if key not in self.verified:
            if record_crc(raw, payload.tobytes()) != header["crc"]:
                raise StopError(ErrorCause.RECORD_CRC, int(header["sequence"]))
            self.verified[key] = None
        return payload, int(header["flags"]), key
