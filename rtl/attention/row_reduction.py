"""Largest float and integer sum of the words of a row."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


@dataclass(frozen=True)
class _Candidate:
    """A canonical float that counts if it was seen."""

    seen: Any
    value: Any

    def is_larger(self, other):
        """Whether this one is to be kept; of equal ones either. Magnitudes are compared: no logic is in front."""
        negative, other_negative = self.value[31], other.value[31]
        above = Mux(negative ^ other_negative, other_negative, (other.value[:31] < self.value[:31]) ^ negative)
        return self.seen & (~other.seen | above)


class RowReduction(wiring.Component):
    """Over the words of a row: ``maximum`` of the visible floats, ``total`` of the visible integers, ``seen``.

    Parameters
    ----------
    lanes       : values a word, ≥ 1.
    addend_bits : unsigned width of the integers; 0: no total.
    total_bits  : width of the total; it must hold the sum of a row.

    Streams
    -------
    i : {first, last, visible lanes, value lanes × float32, addend lanes}; ``first`` and ``last`` frame a row.
    o : {maximum, total, seen}, one a row; nothing visible: maximum +0, total 0, seen 0.

    Timing: a word a cycle; ``o`` follows a row's last word by ``latency_cycles``.
    Number format: IEEE order, −0 < +0, the canonical NaN above +∞; no other NaN may come.
    """

    def __init__(self, lanes: int, addend_bits: int = 0, total_bits: int = 0):
        self.lanes, self.addend_bits, self.total_bits = lanes, addend_bits, total_bits
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "first": 1, "last": 1, "visible": lanes, "value": data.ArrayLayout(32, lanes),
                "addend": data.ArrayLayout(addend_bits, lanes)}))),
            "o": Out(stream.Signature(data.StructLayout({"maximum": 32, "total": total_bits, "seen": 1}))),
        })

    @property
    def latency_cycles(self) -> int:
        return max(1, (self.lanes - 1).bit_length()) + 1

    def elaborate(self, platform):
        m = Module()
        advance = Signal()
        m.d.comb += [advance.eq(self.o.ready | ~self.o.valid), self.i.ready.eq(advance)]

        visible = self.i.p.visible
        best_of = [_Candidate(visible[n], self.i.p.value[n]) for n in range(self.lanes)]
        addends = [Mux(visible[n], self.i.p.addend[n], 0) for n in range(self.lanes)] if self.addend_bits else []
        valid, first, last = self.i.valid, self.i.p.first, self.i.p.last
        level = 0
        while True:  # a register behind every level of both trees, the first behind the selection
            flags = [Signal(name=f"{name}{level}") for name in ("valid", "first", "last")]
            with m.If(advance):
                m.d.sync += [f.eq(source) for f, source in zip(flags, (valid, first, last))]
            valid, first, last = flags
            best_of = [self._larger(m, advance, f"value{level}_{n // 2}", best_of[n:n + 2])
                       for n in range(0, len(best_of), 2)]
            if addends:
                addends = self._level(m, advance, f"addend{level}", addends, lambda a, b: a + b, self.total_bits)
            if len(best_of) == 1:
                break
            level += 1

        best = _Candidate(Signal(name="seen"), Signal(32, name="best", reset_less=True))  # nothing seen: 0
        total, new_total, takes = Signal(self.total_bits), Signal(self.total_bits), Signal()
        m.d.comb += takes.eq(first | best_of[0].is_larger(best))
        if addends:
            m.d.comb += new_total.eq(addends[0] + Mux(first, 0, total))
        with m.If(advance):
            m.d.sync += self.o.valid.eq(valid & last)
            with m.If(valid):
                m.d.sync += total.eq(new_total)
                with m.If(takes):
                    m.d.sync += [best.seen.eq(best_of[0].seen),
                                 best.value.eq(Mux(best_of[0].seen, best_of[0].value, 0))]
        m.d.comb += [self.o.p.seen.eq(best.seen), self.o.p.total.eq(total), self.o.p.maximum.eq(best.value)]
        return m

    @staticmethod
    def _larger(m, advance, name, pair):
        """The larger of a pair (or the odd one) behind a register."""
        kept = _Candidate(Signal(name=f"{name}_seen"), Signal(32, name=name))
        takes, other = pair[0].is_larger(pair[1]) if len(pair) > 1 else 1, pair[-1]
        with m.If(advance):
            m.d.sync += [kept.seen.eq(pair[0].seen | other.seen), kept.value.eq(Mux(takes, pair[0].value, other.value))]
        return kept

    @staticmethod
    def _level(m, advance, name, values, combine, width):
        """One level of a tree: pairs combined into registers (a single value, or the odd one, is passed on)."""
        above = []
        for n in range(0, len(values), 2):
            register = Signal(width, name=f"{name}_{n // 2}")
            with m.If(advance):
                m.d.sync += register.eq(combine(*values[n:n + 2]) if n + 1 < len(values) else values[n])
            above.append(register)
        return above
