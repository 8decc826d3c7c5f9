"""Largest float and integer sum of the words of a row."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.float32.compare import from_sort_key, sort_key


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
        keys = [Mux(visible[n], sort_key(self.i.p.value[n]), 0) for n in range(self.lanes)]
        addends = [Mux(visible[n], self.i.p.addend[n], 0) for n in range(self.lanes)] if self.addend_bits else []
        valid, first, last = self.i.valid, self.i.p.first, self.i.p.last
        level = 0
        while True:  # a register behind every level of both trees, the first behind the selection
            flags = [Signal(name=f"{name}{level}") for name in ("valid", "first", "last")]
            with m.If(advance):
                m.d.sync += [f.eq(source) for f, source in zip(flags, (valid, first, last))]
            valid, first, last = flags
            keys = self._level(m, advance, f"key{level}", keys, lambda a, b: Mux(a > b, a, b), 32)
            if addends:
                addends = self._level(m, advance, f"addend{level}", addends, lambda a, b: a + b, self.total_bits)
            if len(keys) == 1:
                break
            level += 1

        best, total = Signal(32), Signal(self.total_bits)
        new_best, new_total = Signal(32), Signal(self.total_bits)
        m.d.comb += new_best.eq(Mux(first | (keys[0] > best), keys[0], best))
        if addends:
            m.d.comb += new_total.eq(Mux(first, 0, total) + addends[0])
        with m.If(advance):
            m.d.sync += self.o.valid.eq(valid & last)
            with m.If(valid):
                m.d.sync += [best.eq(new_best), total.eq(new_total)]
        seen = best != 0
        m.d.comb += [self.o.p.seen.eq(seen), self.o.p.total.eq(total),
                     self.o.p.maximum.eq(Mux(seen, from_sort_key(best), 0))]
        return m

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
