"""One AXI4 write master for several clients."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect

from rtl.contract.design_params import DesignParams
from rtl.memory_ports import axi4
from rtl.memory_ports.burst_splitter import BurstSplitter
from rtl.memory_ports.word_fifo import word_fifo
from rtl.streams import shapes


class WritePort(wiring.Component):
    """Writes words for its clients, many bursts in flight, one ID, responses in order.

    A burst begins when all its words are here, so a slow client never holds the write channel, and a burst can be
    finished whatever happens to its client.

    Parameters
    ----------
    params  : ``port_bytes``, ``address_bits``, ``burst_beats``.
    clients : number of clients; a lower index has priority, burst by burst (see ``BurstSplitter``).
    bursts  : bursts in flight at most, ≥ 1.

    Streams and signals
    -------------------
    bus (out)         : AXI4 AW, W and B.
    request[c] (in)   : ``address`` in bytes (multiple of port_bytes), ``beats`` port words, 1 … 65535.
    data[c] (in)      : the requests' words in order, ``strobe`` bit b for byte b; may come before their request.
    idle (out)        : bit c: every request of client c is written and acknowledged.
    stop (in)         : no further burst is begun, requests are dropped; bursts already begun are finished with strobes
                        of zero. Hold it until ``outstanding`` is zero and then reset the port with its clients.
    outstanding (out) : bursts that are not acknowledged (an offered address counts).
    error (out)       : pulse: a response was SLVERR or DECERR.

    Timing: one word a cycle; a client's burst every 4 cycles at most; address before data.
    """

    def __init__(self, params: DesignParams, clients: int, bursts: int = 16):
        if bursts < 1:
            raise ValueError(f"bursts is {bursts}; it must be ≥ 1")
        self.params, self.clients, self.bursts = params, clients, bursts
        super().__init__({
            "bus": Out(axi4.write_signature(params)),
            "request": In(stream.Signature(shapes.port_request(params))).array(clients),
            "data": In(stream.Signature(shapes.port_write_word(params))).array(clients),
            "idle": Out(clients),
            "stop": In(1), "outstanding": Out(range(bursts + 1)), "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        bus, params = self.bus, self.params
        m.submodules.splitter = splitter = BurstSplitter(params, self.clients)
        burst = splitter.burst
        begin = Signal()
        m.d.comb += [splitter.stop.eq(self.stop), begin.eq(burst.valid & burst.ready)]

        # Words wait here; `spare` counts those that no burst has claimed.
        depth = 2 * params.burst_beats
        queues = []
        for c in range(self.clients):
            connect(m, wiring.flipped(self.request[c]), splitter.request[c])
            queue = word_fifo(9 * params.port_bytes, depth)
            m.submodules[f"queue_{c}"] = queue
            queues.append(queue)
            spare, claimed, taken = Signal(range(depth + 1)), Signal(9), Signal()
            m.d.comb += [
                queue.w_data.eq(self.data[c].p), taken.eq(self.data[c].valid & queue.w_rdy & ~self.stop),
                queue.w_en.eq(taken), self.data[c].ready.eq(queue.w_rdy & ~self.stop),
                claimed.eq(Mux(begin & (burst.p.client == c), burst.p.beats_minus_1 + 1, 0)),
            ]
            # Judged a cycle earlier, and never by a count that is about to change.
            enough = spare >= Mux(splitter.remaining[c] < params.burst_beats, splitter.remaining[c], params.burst_beats)
            m.d.sync += [spare.eq(spare + taken - claimed),
                         splitter.eligible[c].eq(splitter.busy[c] & enough & (claimed == 0))]

        # Address channel.
        client_bits = len(burst.p.client)
        offered = Signal(client_bits)
        accepted, acknowledged = Signal(), Signal()
        m.d.comb += [
            burst.ready.eq((~bus.awvalid | bus.awready) & (self.outstanding != self.bursts)),
            accepted.eq(bus.awvalid & bus.awready), acknowledged.eq(bus.bvalid & bus.bready),
            bus.awsize.eq(params.port_bytes.bit_length() - 1), bus.awburst.eq(axi4.BURST_INCR),
            bus.awcache.eq(axi4.CACHE_NORMAL), bus.bready.eq(1),
        ]
        with m.If(bus.awready):
            m.d.sync += bus.awvalid.eq(0)
        with m.If(begin):
            m.d.sync += [bus.awvalid.eq(1), bus.awaddr.eq(burst.p.address), bus.awlen.eq(burst.p.beats_minus_1),
                         offered.eq(burst.p.client)]
        m.d.sync += self.outstanding.eq(self.outstanding + begin - acknowledged)

        # Data channel: bursts in the order of their addresses, each after its address.
        m.submodules.begun = begun = word_fifo(client_bits + 8, self.bursts)
        client, beats_minus_1, beat = Signal(client_bits), Signal(8), Signal(8)
        if self.clients > 1:  # an only one needn't be looked up, which saves a multiplexer
            m.d.comb += client.eq(begun.r_data[:client_bits])
        move, is_last = Signal(), Signal()
        m.d.comb += [
            begun.w_en.eq(accepted), begun.w_data.eq(bus.awlen << client_bits | offered),
            beats_minus_1.eq(begun.r_data[client_bits:]),
            move.eq(begun.r_rdy & Array(q.r_rdy for q in queues)[client] & (~bus.wvalid | bus.wready)),
            is_last.eq(beat == beats_minus_1), begun.r_en.eq(move & is_last),
        ]
        m.d.comb += [queue.r_en.eq(move & (client == c)) for c, queue in enumerate(queues)]
        with m.If(bus.wready):
            m.d.sync += bus.wvalid.eq(0)
        with m.If(move):
            word = Signal(shapes.port_write_word(params))
            m.d.comb += word.eq(Array(q.r_data for q in queues)[client])
            m.d.sync += [
                bus.wvalid.eq(1), bus.wdata.eq(word.data), bus.wstrb.eq(Mux(self.stop, 0, word.strobe)),
                bus.wlast.eq(is_last), beat.eq(Mux(is_last, 0, beat + 1)),
            ]

        # Responses.
        m.submodules.owners = owners = word_fifo(client_bits, self.bursts)
        m.d.comb += [owners.w_en.eq(accepted), owners.w_data.eq(offered), owners.r_en.eq(acknowledged)]
        m.d.sync += self.error.eq(acknowledged & bus.bresp[1])
        for c in range(self.clients):
            owed = Signal(range(self.bursts + 1), name=f"owed_{c}")
            m.d.sync += owed.eq(owed + (begin & (burst.p.client == c)) - (acknowledged & (owners.r_data == c)))
            m.d.comb += self.idle[c].eq(~self.request[c].valid & ~splitter.busy[c] & (owed == 0))
        return m
