"""Delay lines: values that wait until their partners are ready.

A value is stable in one cycle of a word; asked for in a later one it goes through registers. With ``ii`` > 1 a
register takes it once a word and holds it ``ii`` cycles, so a delay of D cycles needs ⌈D/ii⌉ registers. All uses of a
value share one line with taps. Stretches of four registers and more are circular memories (LUT RAM; cheap to simulate,
too), a word of up to 64 bits of equally long stretches each.
"""

from dataclasses import dataclass, field

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.memory import Memory

MEMORY_STEPS = 4
"""Shortest stretch that becomes a memory."""
WORD_BITS = 64


@dataclass
class _Line:
    bits: int
    available: int
    steps: set[int] = field(default_factory=set)
    taps: dict[int, Signal] = field(default_factory=dict)


class DelayLines:
    """First ``plan`` every use, then ``begin``, then ``get``."""

    def __init__(self, ii: int):
        self.ii = ii
        self._lines: dict[int, _Line] = {}

    def plan(self, key: int, bits: int, available: int, cycle: int) -> None:
        """The value ``key``, stable in cycle ``available``, is needed in ``cycle``."""
        if cycle < available:
            raise ValueError(f"a value of cycle {available} is needed in cycle {cycle}")
        line = self._lines.setdefault(key, _Line(bits, available))
        line.steps.add(self._steps(line, cycle))

    def _steps(self, line: _Line, cycle: int) -> int:
        return -(-(cycle - line.available) // self.ii)

    @property
    def bits(self) -> int:
        """Bits that wait, in all."""
        return sum(line.bits * max(line.steps) for line in self._lines.values())

    def begin(self, m: Module, enable: Value, phase: Value) -> None:
        """Build all lines; their sources are connected by ``get``."""
        self._sources: dict[int, Signal] = {}
        self._module = m
        stretches: dict[tuple[int, int], list[tuple[Signal, Signal]]] = {}
        for key, line in self._lines.items():
            line.taps = {}
            steps = sorted(line.steps - {0})
            if not steps:
                continue
            at = self._sources[key] = Signal(line.bits, name=_name(key))
            for before, after in zip([0, *steps], steps, strict=False):
                tap = line.taps[after] = Signal(line.bits, name=f"{_name(key)}_{after}", reset_less=True)
                stretches.setdefault((line.available % self.ii, after - before), []).append((at, tap))
                at = tap
        enables = {p: enable if self.ii == 1 else enable & (phase == p) for p in {p for p, _ in stretches}}
        for (when, length), ends in sorted(stretches.items(), key=lambda item: item[0]):
            if length < MEMORY_STEPS:
                self._registers(m, enables[when], length, ends)
            else:
                for number, word in enumerate(_words(ends)):
                    self._memory(m, enables[when], length, word, f"delay{when}_{length}_{number}")

    def get(self, key: int, value: Value, cycle: int) -> Value:
        """``value``, which is that of ``key``, as it stands in ``cycle``."""
        line = self._lines[key]
        if key in self._sources:
            self._module.d.comb += self._sources.pop(key).eq(value)
        steps = self._steps(line, cycle)
        return line.taps[steps] if steps else value

    def _registers(self, m: Module, enable: Value, length: int, ends: list[tuple[Signal, Signal]]) -> None:
        with m.If(enable):
            for source, tap in ends:
                for n in range(length - 1):
                    register = Signal(len(tap), name=f"{tap.name}_{n}", reset_less=True)
                    m.d.sync += register.eq(source)
                    source = register
                m.d.sync += tap.eq(source)

    def _memory(self, m: Module, enable: Value, length: int, word: list[tuple[Signal, Signal]], name: str) -> None:
        """Written at ``head``, read length−1 steps behind it into the port's register."""
        bits = sum(len(tap) for _, tap in word)
        depth_log2 = (length - 1).bit_length()
        m.submodules[name] = memory = Memory(shape=bits, depth=1 << depth_log2, init=[],
                                             attrs={"ram_style": "distributed"})
        write, read = memory.write_port(), memory.read_port()
        head = Signal(depth_log2, name=f"{name}_head")
        with m.If(enable):
            m.d.sync += head.eq(head + 1)
        m.d.comb += [write.addr.eq(head), write.en.eq(enable), write.data.eq(Cat(source for source, _ in word)),
                     read.addr.eq(head - (length - 1)), read.en.eq(enable),
                     Cat(tap for _, tap in word).eq(read.data)]


def _name(key: int) -> str:
    return "tag" if key < 0 else f"value{key}"


def _words(ends: list[tuple[Signal, Signal]]) -> list[list[tuple[Signal, Signal]]]:
    """Stretches put together to words of at most 64 bits."""
    words: list[list[tuple[Signal, Signal]]] = []
    for end in ends:
        for word in words:
            if sum(len(tap) for _, tap in word) + len(end[1]) <= WORD_BITS:
                word.append(end)
                break
        else:
            words.append([end])
    return words
