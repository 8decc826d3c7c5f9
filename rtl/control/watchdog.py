"""Notices that nothing moves any more, in the machine as a whole or on one channel of memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


class Watchdog(wiring.Component):
    """Bites when, for ``limit`` cycles on end, ``progress`` was missing or one of ``owes`` was set.

    A memory port that falls silent is seen by itself: the others may go on for long, prefetching into their rings.

    Parameters
    ----------
    channels : number of memory channels watched, ≥ 1.

    Ports
    -----
    running  : nothing is counted while it is low.
    progress : something moved in this cycle.
    owes[c]  : channel c owes an answer and gave none in this cycle.
    limit    : cycles, 0: never bites. Change it only while ``running`` is low.
    bites    : in the cycle behind the ``limit``-th, and until ``running`` falls or things move again.
    silent   : while it bites: channels silent for ``limit`` cycles, or that owe an answer where nothing moves at all.

    Timing: combinational behind the counters.
    """

    def __init__(self, channels: int):
        self.channels = channels
        super().__init__({
            "running": In(1), "progress": In(1), "owes": In(data.ArrayLayout(1, channels)), "limit": In(32),
            "bites": Out(1), "silent": Out(data.ArrayLayout(1, channels)),
        })

    def elaborate(self, platform):
        m = Module()
        watched = [~self.progress, *self.owes]
        expired = Signal(len(watched))
        for n, still in enumerate(watched):
            cycles = Signal(32, name=f"cycles_{n}")
            over = cycles >= self.limit
            m.d.sync += cycles.eq(Mux(self.running & still, cycles + ~over, 0))
            m.d.comb += expired[n].eq(over)
        active = self.running & (self.limit != 0)
        m.d.comb += [self.bites.eq(active & expired.any()),
                     *(silent.eq(active & (over | (expired[0] & owes)))
                       for silent, over, owes in zip(self.silent, expired[1:], self.owes))]
        return m
