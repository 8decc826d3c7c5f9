"""A large memory with one write and one read port, as UltraRAM wants it."""

from amaranth.hdl import ClockSignal, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.contract.number_formats import bits_for
from rtl.streams.shared_module import EmitPlatform

STYLES = ("ultra", "block", "distributed", "auto")
URAM_WORDS = 2048
"""From this depth on a memory is UltraRAM (4096 deep); below, block RAM wastes less."""


def style_for(depth: int) -> str:
    """"ultra" or "block", whichever wastes less."""
    return "ultra" if depth >= URAM_WORDS else "block"


class UramBank(wiring.Component):
    """``memory[write_address] = write_data`` and ``read_data = memory[read_address]``, each once a cycle.

    Parameters
    ----------
    width        : bits of a word, ≥ 1. One UltraRAM is 72 × 4096; the tool joins several.
    depth        : words, ≥ 2.
    read_latency : cycles from ``read_enable`` to ``read_data``, 1 … 3; from 2 on the output is registered.
    style        : what the vendor's tool shall build: "ultra", "block", "distributed" or "auto".
    write_lanes  : equal parts of a word, each with a bit of ``write_enable``; several want multiples of 8 or 9 bits.

    ``read_data`` of a read stays until the next read's arrives. UltraRAM's rules hold whatever is built: contents are
    undefined until written, there is one clock, and reading an address in the cycle in which it is written yields
    either value (here the old one): users must not do that.

    When Verilog is emitted the bank brings its own module, because the memories that Amaranth writes carry initial
    contents, which UltraRAM hasn't. Source: UltraScale Architecture Memory Resources (UG573), chapter 2.
    """

    def __init__(self, width: int, depth: int, read_latency: int = 1, style: str = "ultra",
                 write_lanes: int = 1):
        if width < 1:
            raise ValueError(f"width is {width}; it must be at least 1")
        if depth < 2:
            raise ValueError(f"depth is {depth}; it must be at least 2")
        if not 1 <= read_latency <= 3:
            raise ValueError(f"read_latency is {read_latency}; it must be 1 … 3")
        if style not in STYLES:
            raise ValueError(f"style is {style!r}; it must be one of {', '.join(STYLES)}")
        if write_lanes < 1 or width % write_lanes:
            raise ValueError(f"write_lanes is {write_lanes}; it must divide the width, {width}")
        self.width, self.depth, self.read_latency, self.style = width, depth, read_latency, style
        self.write_lanes = write_lanes
        self.address_bits = bits_for(depth - 1)
        super().__init__({
            "write_enable": In(write_lanes), "write_address": In(self.address_bits), "write_data": In(width),
            "read_enable": In(1), "read_address": In(self.address_bits), "read_data": Out(width),
        })

    @property
    def module_name(self) -> str:
        lanes = f"_lanes{self.write_lanes}" if self.write_lanes > 1 else ""
        return f"memory_bank_{self.width}x{self.depth}_latency{self.read_latency}_{self.style}{lanes}"

    def elaborate(self, platform):
        m = Module()
        if isinstance(platform, EmitPlatform):
            platform.add_verbatim(self, self.module_name, self._verilog(), clocked=True)
            m.submodules.bank = Instance(
                self.module_name, i_clk=ClockSignal(),
                i_write_enable=self.write_enable, i_write_address=self.write_address, i_write_data=self.write_data,
                i_read_enable=self.read_enable, i_read_address=self.read_address, o_read_data=self.read_data)
            return m
        m.submodules.memory = memory = Memory(shape=self.width, depth=self.depth, init=[])
        write = memory.write_port(granularity=self.width // self.write_lanes)
        read = memory.read_port(transparent_for=())
        m.d.comb += [
            write.en.eq(self.write_enable), write.addr.eq(self.write_address), write.data.eq(self.write_data),
            read.en.eq(self.read_enable), read.addr.eq(self.read_address),
        ]
        enable, data = self.read_enable, read.data
        for stage in range(1, self.read_latency):
            moved_enable, moved = Signal(name=f"enable_{stage}"), Signal(self.width, name=f"stage_{stage}")
            m.d.sync += moved_enable.eq(enable)
            with m.If(moved_enable):
                m.d.sync += moved.eq(data)
            enable, data = moved_enable, moved
        m.d.comb += self.read_data.eq(data)
        return m

    def _verilog(self) -> str:
        word, address = f"[{self.width - 1}:0]", f"[{self.address_bits - 1}:0]"
        style = "" if self.style == "auto" else f'(* ram_style = "{self.style}" *) '
        enable_range = f"[{self.write_lanes - 1}:0] " if self.write_lanes > 1 else ""
        writes = ["  always @(posedge clk) if (write_enable) memory[write_address] <= write_data;"]
        if self.write_lanes > 1:
            step = self.width // self.write_lanes
            parts = [f"[{step * (lane + 1) - 1}:{step * lane}]" for lane in range(self.write_lanes)]
            writes = ["  always @(posedge clk) begin",
                      *(f"    if (write_enable[{lane}]) memory[write_address]{part} <= write_data{part};"
                        for lane, part in enumerate(parts)), "  end"]
        lines = [
            f"\nmodule {self.module_name}(clk, write_enable, write_address, write_data, read_enable, read_address, "
            "read_data);",
            "  input clk;",
            f"  input {enable_range}write_enable;", f"  input {address} write_address;", f"  input {word} write_data;",
            "  input read_enable;", f"  input {address} read_address;", f"  output {word} read_data;",
            f"  {style}reg {word} memory [0:{self.depth - 1}];",
            f"  reg {word} stage_0;",
            *writes,
            "  always @(posedge clk) if (read_enable) stage_0 <= memory[read_address];",
        ]
        enable = "read_enable"
        for stage in range(1, self.read_latency):
            lines += [
                f"  reg enable_{stage}; initial enable_{stage} = 1'b0;",
                f"  reg {word} stage_{stage};",
                f"  always @(posedge clk) enable_{stage} <= {enable};",
                f"  always @(posedge clk) if (enable_{stage}) stage_{stage} <= stage_{stage - 1};",
            ]
            enable = f"enable_{stage}"
        return "\n".join([*lines, f"  assign read_data = stage_{self.read_latency - 1};", "endmodule", ""])
