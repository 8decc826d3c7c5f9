"""Records of the weight stream: headers checked, payload handed to whom it is for, CRC checked at the end."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.register_map import ErrorCause
from rtl.contract.stream_records import MAGIC, RECORD_HEADER, Destination
from rtl.streams import shapes
from rtl.weight_buffer.crc32 import CRC_BITS, Crc32

OUTPUTS = tuple(destination.name.lower() for destination in Destination)
"""Names of the output streams, by number of the destination."""


class RecordParser(wiring.Component):
    """Takes beats, strips and checks the headers, and offers each payload beat to its record's destination.

    Format: ``rtl.contract.stream_records``. Payload is not held back until its CRC is known: the check says afterwards
    whether the record was right, and the machine stops if not.

    Parameters
    ----------
    params : ``beat_bytes``.

    Streams and signals
    -------------------
    beats (in)  : beats of the stream.
    codes, gains, head_scales, head_rows (out) : payload, ``first`` and ``last`` of the record's, ``bank`` of its flags.
                  One that isn't ready stalls the whole stream.
    error (out), error_cause, error_info (out) : from the first fault until reset; nothing is taken meanwhile.
                  RECORD_MAGIC (info: sequence number expected), RECORD_FRAMING (unknown destination or no payload;
                  info: sequence number), RECORD_CRC (info: sequence number).
    idle (out)  : between records, nothing offered, no check under way.

    Timing: a beat a cycle, offered ``latency_cycles`` later; a header's beat yields nothing. A CRC fault shows
    ``Crc32.latency_cycles + 1`` cycles after the last beat was taken.
    """

    latency_cycles = 1

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "beats": In(stream.Signature(8 * params.beat_bytes)),
            **{name: Out(shapes.framed(params)) for name in OUTPUTS},
            "error": Out(1), "error_cause": Out(8), "error_info": Out(32), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        header = Signal(shapes.command_layout(RECORD_HEADER))
        raw = self.beats.p
        m.d.comb += header.eq(raw[:32 * RECORD_HEADER.words])

        left, expected = Signal(32), Signal(32)  # payload beats to come; sequence number after this record's
        destination, bank, first = Signal(2), Signal(), Signal()
        crc, sequence = Signal(CRC_BITS), Signal(32)
        offered, payload = Signal(len(OUTPUTS)), Signal(shapes.beat(self.params))
        is_header, taken = Signal(), Signal()
        free = Signal()
        outputs = [getattr(self, name) for name in OUTPUTS]
        m.d.comb += [
            is_header.eq(left == 0),
            free.eq(~(offered & ~Cat(output.ready for output in outputs)).any()),
            self.beats.ready.eq(~self.error & (is_header | free)), taken.eq(self.beats.valid & self.beats.ready),
        ]
        for n, output in enumerate(outputs):
            m.d.comb += [output.valid.eq(offered[n]), output.p.eq(payload)]
        with m.If(free):
            m.d.sync += offered.eq(0)

        m.submodules.check = check = Crc32(self.params.beat_bytes, CRC_BITS + 32)
        crc_field = RECORD_HEADER.fields["crc"]
        blank = ((1 << 8 * self.params.beat_bytes) - 1) ^ (((1 << crc_field.width) - 1) << crc_field.bit)
        m.d.comb += [
            check.enable.eq(taken), check.data.eq(Mux(is_header, raw & blank, raw)),
            check.first.eq(is_header), check.last.eq(~is_header & (left == 1)), check.tag.eq(Cat(crc, sequence)),
            self.idle.eq(is_header & (offered == 0) & ~check.busy),
        ]

        def stop(cause: ErrorCause, info) -> list:
            return [self.error.eq(1), self.error_cause.eq(cause.value), self.error_info.eq(info)]

        with m.If(taken & is_header):
            m.d.sync += [
                crc.eq(header.crc), sequence.eq(header.sequence), expected.eq(header.sequence + 1),
                destination.eq(header.destination), bank.eq(header.flags[0]), first.eq(1),
            ]
            with m.If(header.magic != MAGIC):
                m.d.sync += stop(ErrorCause.RECORD_MAGIC, expected)
            with m.Elif((header.destination >= len(OUTPUTS)) | (header.beats == 0)):
                m.d.sync += stop(ErrorCause.RECORD_FRAMING, header.sequence)
            with m.Else():
                m.d.sync += left.eq(header.beats)
        with m.If(taken & ~is_header):
            m.d.sync += [
                left.eq(left - 1), first.eq(0), offered.eq(1 << destination),
                payload.data.eq(raw), payload.first.eq(first), payload.last.eq(left == 1),
                payload.bank.eq(bank),
            ]
        with m.If(check.done & (check.crc != check.tag_out[:CRC_BITS]) & ~self.error):
            m.d.sync += stop(ErrorCause.RECORD_CRC, check.tag_out[CRC_BITS:])
        return m
