"""Requests of several clients, cut into AXI bursts: the arbiter that both directions of a port share."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.memory_ports.axi4 import PAGE_BYTES
from rtl.streams import shapes


def burst_layout(params: DesignParams, clients: int) -> data.StructLayout:
    """A burst: first byte, length − 1 as AXI wants it, whose it is, whether it ends the request."""
    return data.StructLayout({
        "address": params.address_bits, "beats_minus_1": 8, "client": bits_for(clients - 1), "last": 1,
    })


class BurstSplitter(wiring.Component):
    """Cuts requests into bursts of at most ``burst_beats`` beats within 4096-byte pages, one client's burst at a time.

    The client with the lowest index that is eligible goes first, burst by burst. Every ``FAVOUR_INTERVAL``-th burst a
    client in rotation goes first instead, so that none waits for ever.

    Parameters
    ----------
    params  : ``burst_beats``, ``port_bytes``, ``address_bits``.
    clients : number of clients, ≥ 1.

    Streams and signals
    -------------------
    request[c] (in)  : ``address`` (multiple of port_bytes) and ``beats``; one of zero beats is taken and forgotten.
    burst (out)      : bursts, those of one request in order. A burst is withdrawn only when ``stop`` comes.
    eligible (in)    : bit c: client c may have a burst cut now.
    busy (out)       : bit c: a request of client c is not cut to its end.
    remaining (out)  : beats of client c's request that aren't in a burst yet.
    stop (in)        : forget all requests, take and forget new ones, offer no burst.

    Timing: a burst every ``interval_cycles``.
    """

    interval_cycles = 3
    FAVOUR_INTERVAL = 16

    def __init__(self, params: DesignParams, clients: int):
        if clients < 1:
            raise ValueError(f"clients is {clients}; a port needs at least one")
        self.params, self.clients = params, clients
        super().__init__({
            "request": In(stream.Signature(shapes.port_request(params))).array(clients),
            "burst": Out(stream.Signature(burst_layout(params, clients))),
            "eligible": In(clients), "busy": Out(clients),
            "remaining": Out(data.ArrayLayout(shapes.BEATS_BITS, clients)),
            "stop": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        word_log2 = self.params.port_bytes.bit_length() - 1
        page_words = PAGE_BYTES // self.params.port_bytes
        address = Array(Signal(self.params.address_bits, name=f"address_{c}") for c in range(self.clients))
        remaining = self.remaining

        for c, request in enumerate(self.request):
            m.d.comb += request.ready.eq(~self.busy[c] | self.stop)
            with m.If(request.valid & request.ready & ~self.stop):
                m.d.sync += [
                    address[c].eq(request.p.address), remaining[c].eq(request.p.beats),
                    self.busy[c].eq(request.p.beats != 0),
                ]

        # Whose burst is next.
        candidates, choice = Signal(self.clients), Signal(bits_for(self.clients - 1))
        turn = Signal(range(self.FAVOUR_INTERVAL << len(choice)))
        favoured = turn // self.FAVOUR_INTERVAL
        m.d.comb += candidates.eq(self.busy & self.eligible)
        for c in reversed(range(self.clients)):
            with m.If(candidates[c]):
                m.d.comb += choice.eq(c)
        with m.If((turn % self.FAVOUR_INTERVAL == 0) & candidates.bit_select(favoured, 1)):
            m.d.comb += choice.eq(favoured)

        # Three steps, because choosing, measuring and moving on are too much for one cycle.
        current, current_remaining = self.burst.p, Signal(shapes.BEATS_BITS)
        page_left, length = Signal(range(page_words + 1)), Signal(9)
        limit = Signal(9)
        m.d.comb += [
            page_left.eq(page_words - current.address[word_log2:12]),
            limit.eq(Mux(page_left < self.params.burst_beats, page_left, self.params.burst_beats)),
        ]
        with m.FSM():
            with m.State("CHOOSE"):
                with m.If(candidates.any() & ~self.stop):
                    m.d.sync += [
                        current.client.eq(choice), current.address.eq(address[choice]),
                        current_remaining.eq(Array(remaining[c] for c in range(self.clients))[choice]),
                        turn.eq(turn + 1),
                    ]
                    m.next = "MEASURE"
            with m.State("MEASURE"):
                with m.If(current_remaining > limit):
                    m.d.sync += [length.eq(limit), current.beats_minus_1.eq(limit - 1), current.last.eq(0)]
                with m.Else():
                    m.d.sync += [length.eq(current_remaining), current.beats_minus_1.eq(current_remaining - 1),
                                 current.last.eq(1)]
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.burst.valid.eq(~self.stop)
                with m.If(self.burst.ready):
                    with m.Switch(current.client):
                        for c in range(self.clients):
                            with m.Case(c):
                                m.d.sync += [
                                    address[c].eq(current.address + (length << word_log2)),
                                    remaining[c].eq(current_remaining - length), self.busy[c].eq(~current.last),
                                ]
                    m.next = "CHOOSE"
        with m.If(self.stop):
            m.d.sync += self.busy.eq(0)
        return m
