"""Performance counters, one a cause, that run while a pass runs."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.contract.number_formats import bits_for
from rtl.contract.register_map import Counter

COUNTER_BITS = 48
"""Counted width; 2**48 cycles are 13 days at 250 MHz. Read as 64 bits."""
RECENT_BITS = bits_for(2 * len(Counter))
"""Of what a counter gathers until its turn."""


class Counters(wiring.Component):
    """Each rises by one in each cycle in which its bit of ``events`` and ``running`` is set; ``clear`` zeroes all.

    The counts lie in a memory with one adder. Each has a few bits of its own, which its turn adds to it: a counter has
    its turn every len(Counter) cycles, and when it is asked for.

    Ports
    -----
    asked, number → ``value``, in the same cycle: counter ``number``, with all events of earlier cycles. At most every
    other cycle may have ``asked``.
    """

    def __init__(self):
        super().__init__({
            "running": In(1), "clear": In(1), "events": In(len(Counter)),
            "asked": In(1), "number": In(range(len(Counter))), "value": Out(64),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.counts = counts = Memory(shape=COUNTER_BITS, depth=len(Counter), init=[])
        read, write = counts.read_port(domain="comb"), counts.write_port()
        recent = Array(Signal(RECENT_BITS, name=f"recent_{counter.name.lower()}") for counter in Counter)
        is_zero = Signal(len(Counter), init=-1)
        turn, here, total = (Signal(range(len(Counter))), Signal(range(len(Counter))), Signal(COUNTER_BITS))
        m.d.comb += [
            here.eq(Mux(self.asked, self.number, turn)), read.addr.eq(here),
            total.eq(Mux(is_zero.bit_select(here, 1), 0, read.data) + recent[here]),
            write.addr.eq(here), write.data.eq(total), write.en.eq(1), self.value.eq(total),
        ]
        with m.If(~self.asked):
            m.d.sync += turn.eq(Mux(turn == len(Counter) - 1, 0, turn + 1))
        for counter in Counter:
            number = counter.value
            rises = self.running & self.events[number]
            with m.If(self.clear):
                m.d.sync += [recent[number].eq(0), is_zero[number].eq(1)]
            with m.Elif(here == number):
                m.d.sync += [recent[number].eq(rises), is_zero[number].eq(0)]
            with m.Else():
                m.d.sync += recent[number].eq(recent[number] + rises)
        return m
