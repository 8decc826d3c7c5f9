"""Golden of rtl/weight_buffer: a byte stream taken apart into records, with every check."""

from collections.abc import Iterator
from dataclasses import dataclass

from rtl.contract.stream_records import MAGIC, RECORD_HEADER, Destination, record_crc


@dataclass(frozen=True)
class StreamRecord:
    """A record whose header and CRC are right; ``beat`` is its header's number in the stream."""

    destination: Destination
    flags: int
    sequence: int
    beat: int
    payload: bytes


def parse_records(stream: bytes, beat_bytes: int) -> Iterator[StreamRecord]:
    """The records of ``stream`` in order.

    Raises ``ValueError`` naming the record (its place in the stream) and the cause: a length that isn't whole beats, a
    header without magic, an unknown destination, no payload, a payload cut short, a wrong CRC.
    """
    if len(stream) % beat_bytes:
        raise ValueError(f"the stream has {len(stream)} bytes, which is not a multiple of a beat's {beat_bytes}")
    at = number = 0
    while at < len(stream):
        raw = stream[at:at + beat_bytes]
        fields = {name: int(value) for name, value in RECORD_HEADER.unpack(raw).items()}
        where = f"record {number} at beat {at // beat_bytes} (sequence {fields['sequence']})"
        if fields["magic"] != MAGIC:
            raise ValueError(f"{where}: its header has no magic ({fields['magic']:#06x} instead of {MAGIC:#06x})")
        if fields["destination"] not in list(Destination):
            raise ValueError(f"{where}: destination {fields['destination']} is unknown")
        if fields["beats"] == 0:
            raise ValueError(f"{where}: it has no payload")
        end = at + (1 + fields["beats"]) * beat_bytes
        if end > len(stream):
            here = (len(stream) - at) // beat_bytes - 1
            raise ValueError(f"{where}: the stream ends after {here} of {fields['beats']} payload beats")
        payload = stream[at + beat_bytes:end]
        crc = record_crc(raw, payload)
        if crc != fields["crc"]:
            raise ValueError(f"{where}: its CRC is {crc:#010x}, the header says {fields['crc']:#010x}")
        yield StreamRecord(Destination(fields["destination"]), fields["flags"], fields["sequence"], at // beat_bytes,
                           payload)
        at, number = end, number + 1
