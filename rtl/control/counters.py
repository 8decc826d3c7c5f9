"""Performance counters, one a cause, that run while a pass runs."""

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.register_map import Counter

COUNTER_BITS = 48
"""Counted width; 2**48 cycles are 13 days at 250 MHz. Read as 64 bits."""


class Counters(wiring.Component):
    """``values[c]`` rises by one in each cycle in which ``events[c]`` and ``running`` are set; ``clear`` zeroes all."""

    def __init__(self):
        super().__init__({
            "running": In(1), "clear": In(1), "events": In(len(Counter)),
            "values": Out(data.ArrayLayout(64, len(Counter))),
        })

    def elaborate(self, platform):
        m = Module()
        for counter in Counter:
            value = self.values[counter.value][:COUNTER_BITS]
            with m.If(self.clear):
                m.d.sync += value.eq(0)
            with m.Elif(self.running & self.events[counter.value]):
                m.d.sync += value.eq(value + 1)
        return m
