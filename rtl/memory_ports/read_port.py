"""One AXI4 read master for several clients."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect

from rtl.contract.design_params import DesignParams
from rtl.memory_ports import axi4
from rtl.memory_ports.burst_splitter import BurstSplitter
from rtl.memory_ports.word_fifo import word_fifo
from rtl.streams import shapes


class ReadPort(wiring.Component):
    """Reads words for its clients, many bursts in flight, one ID, answers in order.

    A client asks only for what it has room for: data are never held back (else words of one client would stand in front
    of another's on the one read channel, and the machine could lock up). A client that is not ready loses the word and
    ``overflow`` says so.

    Parameters
    ----------
    params  : ``port_bytes``, ``address_bits``, ``burst_beats``.
    clients : number of clients; a lower index has priority, burst by burst (see ``BurstSplitter``).
    bursts  : bursts in flight at most, ≥ 1.

    Streams and signals
    -------------------
    bus (out)         : AXI4 AR and R.
    request[c] (in)   : ``address`` in bytes (multiple of port_bytes), ``beats`` port words, 1 … 65535.
    data[c] (out)     : port words in address order, ``last`` on a request's last one.
    stop (in)         : no further burst is begun, requests are dropped, data that still comes is thrown away; an
                        address that is already offered stays until taken. Hold it until ``outstanding`` is zero and
                        then reset the port with its clients.
    outstanding (out) : bursts whose last word has not come (an offered address counts).
    error (out)       : pulse: a word came with SLVERR or DECERR (the word is delivered nevertheless).
    overflow (out)    : pulse: a client was not ready.

    Timing: one word a cycle, a cycle behind the bus; a burst every 3 cycles at most; ``request`` to ``arvalid``
    ``address_latency_cycles``.
    """

    address_latency_cycles = 4

    def __init__(self, params: DesignParams, clients: int, bursts: int = 16):
        if bursts < 1:
            raise ValueError(f"bursts is {bursts}; it must be ≥ 1")
        self.params, self.clients, self.bursts = params, clients, bursts
        super().__init__({
            "bus": Out(axi4.read_signature(params)),
            "request": In(stream.Signature(shapes.port_request(params))).array(clients),
            "data": Out(stream.Signature(axi4.port_word(params))).array(clients),
            "stop": In(1), "outstanding": Out(range(bursts + 1)), "error": Out(1), "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        m.submodules.splitter = splitter = BurstSplitter(self.params, self.clients)
        for c in range(self.clients):
            connect(m, wiring.flipped(self.request[c]), splitter.request[c])
        burst = splitter.burst
        m.d.comb += [splitter.stop.eq(self.stop), splitter.eligible.eq(~0)]

        # A burst enters the queue of owners when its address is offered, so its data can't come before.
        owner_bits = len(burst.p.client)
        m.submodules.owners = owners = word_fifo(owner_bits + 1, self.bursts)
        m.d.comb += [
            burst.ready.eq((~bus.arvalid | bus.arready) & owners.w_rdy),
            owners.w_en.eq(burst.valid & burst.ready), owners.w_data.eq(burst.p.client << 1 | burst.p.last),
            self.outstanding.eq(owners.level),
            bus.arsize.eq(self.params.port_bytes.bit_length() - 1), bus.arburst.eq(axi4.BURST_INCR),
            bus.arcache.eq(axi4.CACHE_NORMAL),
        ]
        with m.If(bus.arready):
            m.d.sync += bus.arvalid.eq(0)
        with m.If(burst.valid & burst.ready):
            m.d.sync += [bus.arvalid.eq(1), bus.araddr.eq(burst.p.address), bus.arlen.eq(burst.p.beats_minus_1)]

        word, owner, has_word = Signal(axi4.port_word(self.params)), Signal(owner_bits), Signal()
        m.d.comb += [bus.rready.eq(1), owners.r_en.eq(bus.rvalid & bus.rlast)]
        m.d.sync += [has_word.eq(bus.rvalid & ~self.stop), self.error.eq(bus.rvalid & bus.rresp[1])]
        with m.If(bus.rvalid):
            m.d.sync += [word.data.eq(bus.rdata), word.last.eq(bus.rlast & owners.r_data[0]),
                         owner.eq(owners.r_data[1:])]
        lost = Signal(self.clients)
        for c, client in enumerate(self.data):
            m.d.comb += [
                client.valid.eq(has_word & ~self.stop & (owner == c)), client.p.eq(word),
                lost[c].eq(client.valid & ~client.ready),
            ]
        m.d.sync += self.overflow.eq(lost.any())
        return m
