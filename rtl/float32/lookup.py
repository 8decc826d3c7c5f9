"""Table lookup by integer: a ROM with registered output."""

from collections.abc import Sequence

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

BLOCK_ROM_BITS = 1 << 12
"""Smaller tables are left to the synthesis tool, which puts them into LUTs."""


class Lookup(wiring.Component):
    """``o = contents[index]``, one lookup an enabled cycle; an index beyond the contents is the caller's fault.

    Parameters
    ----------
    contents : unsigned integers.
    bits     : width of an entry.

    Streams: none; ``enable`` moves the pipeline (see the package).
    Timing: 1 cycle from LUTs, 2 from block RAM (with its output register).
    """

    def __init__(self, contents: Sequence[int], bits: int):
        self.contents = tuple(contents)
        self.bits = bits
        self.is_block = self.in_block_ram(len(self.contents), bits)
        self.latency_cycles = self.latency(len(self.contents), bits)
        super().__init__({"enable": In(1), "index": In(max(1, (len(self.contents) - 1).bit_length())),
                          "o": Out(bits)})

    @staticmethod
    def in_block_ram(entries: int, bits: int) -> bool:
        return entries * bits > BLOCK_ROM_BITS

    @staticmethod
    def latency(entries: int, bits: int) -> int:
        return 2 if Lookup.in_block_ram(entries, bits) else 1

    def elaborate(self, platform):
        m = Module()
        m.submodules.rom = rom = Memory(shape=self.bits, depth=len(self.contents), init=self.contents,
                                        attrs={"rom_style": "block"} if self.is_block else {})
        port = rom.read_port()
        m.d.comb += [port.addr.eq(self.index), port.en.eq(self.enable)]
        if self.is_block:
            found = Signal(self.bits, reset_less=True)
            with m.If(self.enable):
                m.d.sync += found.eq(port.data)
            m.d.comb += self.o.eq(found)
        else:
            m.d.comb += self.o.eq(port.data)
        return m
