"""CRC-32 of whole beats, a beat a cycle."""

import zlib

from amaranth.hdl import Cat, ClockSignal, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.streams.shared_module import EmitPlatform

CRC_BITS = 32
ONES = (1 << CRC_BITS) - 1
GROUP_BITS = 4
PATTERNS = (1 << GROUP_BITS) - 1


def step(state: int, raw: bytes) -> int:
    """State of the CRC register after ``raw``, without the inversions before and after: linear in both over GF(2)."""
    return zlib.crc32(raw, state ^ ONES) ^ ONES


def masks(columns: list[int]) -> list[int]:
    """Rows of the linear map whose image of bit n is ``columns[n]``: bit j of the result is parity(x & masks[j])."""
    return [sum((column >> j & 1) << n for n, column in enumerate(columns)) for j in range(CRC_BITS)]


class CrcRegister(wiring.Component):
    """The CRC's register and its two matrices: state' = A·state ⊕ B·beat, over GF(2).

    B·beat takes two pipeline stages. Its result is taken GROUP_BITS bits at a time: beat bits that change a group in
    the same way share a parity, so that ``class`` (g, p) is the parity of those that change group g by the pattern
    p ≠ 0, and a bit of ``part`` the parity of the classes whose pattern has it: half the logic of a parity over half
    the beat for each bit. A·state takes one cycle. Each stage moves with its own enable.

    When Verilog is emitted this brings its own text: masked words stay masked words, where Amaranth's way through
    Yosys would take them apart into bits, and a simulator would need ten times as long.
    """

    def __init__(self, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({
            "data": In(8 * beat_bytes), "class_enable": In(1), "part_enable": In(1), "state_enable": In(1),
            "restart": In(1), "state": Out(CRC_BITS),
        })
        self.words = beat_bytes // 4
        columns = [step(0, (1 << n).to_bytes(beat_bytes, "little")) for n in range(8 * beat_bytes)]
        self.of_class = []
        """Beat bits of each class, patterns 1 … of group 0 first."""
        for group in range(0, CRC_BITS, GROUP_BITS):
            patterns = [column >> group & PATTERNS for column in columns]
            self.of_class += [sum((found == pattern) << n for n, found in enumerate(patterns))
                              for pattern in range(1, PATTERNS + 1)]
        self.of_part = [sum((pattern >> j % GROUP_BITS & 1) << j // GROUP_BITS * PATTERNS + pattern - 1
                            for pattern in range(1, PATTERNS + 1)) for j in range(CRC_BITS)]
        """Classes of each bit of ``part``."""
        self.of_state = masks([step(1 << n, bytes(beat_bytes)) for n in range(CRC_BITS)])
        self.of_start = step(ONES, bytes(beat_bytes))

    @property
    def module_name(self) -> str:
        return f"crc32_register_{self.beat_bytes}"

    def elaborate(self, platform):
        m = Module()
        if isinstance(platform, EmitPlatform):
            platform.add_verbatim(self, self.module_name, self._verilog(), clocked=True)
            ports = {("i_" if member.flow is In else "o_") + name: getattr(self, name)
                     for name, member in self.signature.members.items()}
            m.submodules.register = Instance(self.module_name, i_clk=ClockSignal(), **ports)
            return m
        classes, part, moved = Signal(len(self.of_class)), Signal(CRC_BITS), Signal(CRC_BITS)
        with m.If(self.class_enable):
            m.d.sync += classes.eq(Cat((self.data & mask).xor() for mask in self.of_class))
        with m.If(self.part_enable):
            m.d.sync += part.eq(Cat((classes & mask).xor() for mask in self.of_part))
        m.d.comb += moved.eq(Mux(self.restart, self.of_start, Cat((self.state & mask).xor() for mask in self.of_state)))
        with m.If(self.state_enable):
            m.d.sync += self.state.eq(moved ^ part)
        return m

    def _verilog(self) -> str:
        def parity(signal: str, mask: int, words: int) -> str:
            terms = [(n, mask >> 32 * n & 0xFFFFFFFF) for n in range(words)]
            found = " ^ ".join(f"({signal}[{32 * n + 31}:{32 * n}] & 32'h{word:08x})" for n, word in terms if word)
            return f"^({found or 0})"

        def parities(signal: str, rows: list[int], words: int) -> str:
            return "{\n" + ",\n".join(f"    {parity(signal, mask, words)}" for mask in reversed(rows)) + "}"

        class_words = -(-len(self.of_class) // 32)
        return "\n".join([
            f"\nmodule {self.module_name}(clk, data, class_enable, part_enable, state_enable, restart, state);",
            "  input clk;", f"  input [{8 * self.beat_bytes - 1}:0] data;",
            "  input class_enable;", "  input part_enable;", "  input state_enable;", "  input restart;",
            "  output reg [31:0] state;", "  reg [31:0] part;", f"  reg [{32 * class_words - 1}:0] classes;",
            f"  always @(posedge clk) if (class_enable) classes <= {parities('data', self.of_class, self.words)};",
            f"  always @(posedge clk) if (part_enable) part <= {parities('classes', self.of_part, class_words)};",
            f"  wire [31:0] moved = {parities('state', self.of_state, 1)};",
            f"  always @(posedge clk) if (state_enable) state <= (restart ? 32'h{self.of_start:08x} : moved) ^ part;",
            "endmodule", "",
        ])


class Crc32(wiring.Component):
    """CRC-32 over messages of whole beats: ``crc = zlib.crc32(beat₀ ‖ beat₁ ‖ …)``, byte 0 in a beat's lowest bits.

    Parameters
    ----------
    beat_bytes : bytes of a beat, a multiple of 4.
    tag_bits   : width of what accompanies a message, ≥ 1.

    Signals
    -------
    enable, data, first, last, tag (in) : a beat in each cycle with ``enable``; ``tag`` counts on the last one.
    done, crc, tag_out (out) : ``done`` pulses ``latency_cycles`` after a last beat.
    busy (out)               : beats are in the pipeline.

    Source: IEEE 802.3, clause 3.2.9, with the bit order and the inversions of zlib (RFC 1952, section 8).
    """

    latency_cycles = 3

    def __init__(self, beat_bytes: int, tag_bits: int):
        if beat_bytes < 4 or beat_bytes % 4:
            raise ValueError(f"beat_bytes is {beat_bytes}; it must be a multiple of 4")
        if tag_bits < 1:
            raise ValueError(f"tag_bits is {tag_bits}; it must be ≥ 1")
        self.beat_bytes, self.tag_bits = beat_bytes, tag_bits
        super().__init__({
            "enable": In(1), "data": In(8 * beat_bytes), "first": In(1), "last": In(1), "tag": In(tag_bits),
            "done": Out(1), "crc": Out(CRC_BITS), "tag_out": Out(tag_bits), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.register = register = CrcRegister(self.beat_bytes)
        classed, first_1, last_1, tag_1 = Signal(), Signal(), Signal(), Signal(self.tag_bits)
        parted, first_2, last_2, tag_2 = Signal(), Signal(), Signal(), Signal(self.tag_bits)
        m.d.sync += [
            classed.eq(self.enable), first_1.eq(self.first), last_1.eq(self.last), tag_1.eq(self.tag),
            parted.eq(classed), first_2.eq(first_1), last_2.eq(last_1), tag_2.eq(tag_1),
            self.done.eq(parted & last_2), self.tag_out.eq(tag_2),
        ]
        m.d.comb += [
            register.data.eq(self.data), register.class_enable.eq(self.enable), register.part_enable.eq(classed),
            register.state_enable.eq(parted), register.restart.eq(first_2),
            self.crc.eq(~register.state), self.busy.eq(classed | parted | self.done),
        ]
        return m
