"""The weight stream: extents in, payload of records out."""

from amaranth.hdl import Cat, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.contract.design_params import DesignParams
from rtl.memory_ports.axi4 import port_word
from rtl.streams import shapes
from rtl.weight_buffer.port_fetcher import PortFetcher
from rtl.weight_buffer.port_ring import PortRing
from rtl.weight_buffer.record_parser import OUTPUTS, RecordParser

EVENTS = data.StructLayout({"beat": 1, "ring_full": 1, "empty": 1})
"""A beat was taken from the rings; the fetch was held back because port 0's ring has no room."""


class WeightStream(wiring.Component):
    """Fetches the extents through all ports, joins the ports' words to beats, and hands out the records' payload.

    Each port has its own fetcher and ring and runs ahead by itself, so a slow port is averaged over the ring's depth;
    words join where the rings are read. No word is asked for that has no room, so the read channels never stand still
    for weights, whatever the destinations do. Extents follow each other without a gap: those of the next pass are
    fetched as soon as they are queued.

    Parameters
    ----------
    params : ``ports``, ``port_bytes``, ``ring_words``, ``burst_beats``, ``address_bits``.
    queue  : extents that wait (beyond the one that is being fetched), ≥ 1.

    Streams and signals
    -------------------
    extents (in)       : ``beats``, ``base[p]``: where port p's words begin (multiple of port_bytes). One of zero beats
                         is taken and forgotten. Records may go on from one extent into the next.
    extents_idle (out) : every extent was fetched, delivered and checked, and no record is open.
    port_request[p] (out), port_data[p] (in) : to port p's ReadPort (the client with the lowest priority).
    codes, gains, head_scales, head_rows (out), error, error_cause, error_info (out) : see ``RecordParser``.
    events (out)       : ``beat``, ``ring_full`` (of port 0), ``empty`` (strobes). rings_full (out): of every port.

    Timing: a beat a cycle while rings hold words; ``latency_cycles`` from the last port's word to the payload's offer.
    """

    latency_cycles = PortRing.latency_cycles + RecordParser.latency_cycles

    def __init__(self, params: DesignParams, queue: int = 4):
        self.params, self.queue = params, queue
        super().__init__({
            "extents": In(stream.Signature(shapes.extent(params))), "extents_idle": Out(1),
            "port_request": Out(stream.Signature(shapes.port_request(params))).array(params.ports),
            "port_data": In(stream.Signature(port_word(params))).array(params.ports),
            **{name: Out(shapes.framed(params)) for name in OUTPUTS},
            "error": Out(1), "error_cause": Out(8), "error_info": Out(32),
            "events": Out(EVENTS), "rings_full": Out(params.ports),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.parser = parser = RecordParser(self.params)
        fetchers, rings = [], []
        for p in range(self.params.ports):
            fetcher, ring = PortFetcher(self.params, self.queue), PortRing(self.params)
            m.submodules[f"fetcher_{p}"], m.submodules[f"ring_{p}"] = fetcher, ring
            connect(m, fetcher.port_request, flipped(self.port_request[p]))
            connect(m, flipped(self.port_data[p]), ring.fill)
            m.d.comb += [
                fetcher.returned.eq(ring.moved),
                fetcher.extents.p.beats.eq(self.extents.p.beats), fetcher.extents.p.address.eq(self.extents.p.base[p]),
                fetcher.extents.valid.eq(self.extents.valid & self.extents.ready),
                ring.word.ready.eq(parser.beats.valid & parser.beats.ready),
            ]
            fetchers.append(fetcher)
            rings.append(ring)
        m.d.comb += [
            self.extents.ready.eq(Cat(fetcher.extents.ready for fetcher in fetchers).all()),
            parser.beats.valid.eq(Cat(ring.word.valid for ring in rings).all()),
            parser.beats.p.eq(Cat(ring.word.p for ring in rings)),
            self.extents_idle.eq(~self.extents.valid & Cat(fetcher.idle for fetcher in fetchers).all()
                                 & Cat(ring.empty for ring in rings).all() & parser.idle),
            self.error.eq(parser.error), self.error_cause.eq(parser.error_cause), self.error_info.eq(parser.error_info),
            self.events.beat.eq(parser.beats.valid & parser.beats.ready),
            self.events.ring_full.eq(fetchers[0].held_back),
            self.events.empty.eq(~parser.beats.valid),
            self.rings_full.eq(Cat(fetcher.held_back for fetcher in fetchers)),
        ]
        for name in OUTPUTS:
            connect(m, getattr(parser, name), flipped(getattr(self, name)))
        return m
