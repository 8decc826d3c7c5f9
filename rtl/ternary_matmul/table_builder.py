"""Builds the lookup tables of the rows it serves, one entry of all T tables a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.contract.weight_encodings import entry_bits, table_entries
from rtl.ternary_matmul.lane import entry_offset


def build_order(group: int) -> list[tuple[int, int, bool]]:
    """(entry, activation, subtract): entries in an order where each is the previous one ± one activation.

    The first starts from zero. A walk over the positive half of {−1, 0, 1}**G: the half of the first G − 1 digits, then
    the whole plane of digit G − 1 = 1 back and forth from the corner where the half ended.
    """
    walk: list[tuple[int, ...]] = []
    position = (0,) * group
    for dimension in range(group):
        plane = _back_and_forth(position[:dimension])
        walk += [(*digits, 1) + (0,) * (group - dimension - 1) for digits in plane]
        position = walk[-1]
    moves, before = [], (0,) * group
    for digits in walk:
        (activation,) = [i for i in range(group) if digits[i] != before[i]]
        moves.append((sum(d * 3**i for i, d in enumerate(digits)), activation, digits[activation] < before[activation]))
        before = digits
    return moves


def _back_and_forth(corner: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All points of {−1, 0, 1}**d from ``corner`` on, each one step from the one before."""
    if not corner:
        return [()]
    *rest, top = corner
    line = (top, 0, -top)
    points: list[tuple[int, ...]] = []
    start = tuple(rest)
    for value in line:
        plane = _back_and_forth(start)
        points += [(*p, value) for p in plane]
        start = plane[-1]
    return points


class TableBuilder(wiring.Component):
    """``table_t[e] = Σ_i digit_i(e)·activation[t·G + i] + offset`` for e = 1 … (3**G − 1)/2 and every t.

    Parameters: T = ``tables``, G = ``group``, ``rows_per_builder`` of the design.

    Signals
    -------
    load, activations, turn, bank (in) : a row's T·G int8, which of the served rows it is, and which bank to fill.
    enable (out)                       : bit j: the lane of served row j writes ``data`` to ``address`` = {entry, bank}.

    Timing: entries are written in cycles 2 … 1 + ``build_cycles`` after ``load``; the next load may come
    ``build_cycles`` after the last. ``build_cycles`` = entries − 1: entry 0 is constant.

    Number format: as the lane's entries.
    """

    first_write_cycles = 2

    def __init__(self, params: DesignParams):
        self.params = params
        self.turn_bits = bits_for(params.rows_per_builder - 1)
        super().__init__({
            "load": In(1), "activations": In(8 * params.slice_elements), "turn": In(self.turn_bits), "bank": In(1),
            "enable": Out(params.rows_per_builder), "address": Out(entry_bits(params.group) + 1),
            "data": Out(params.tables * params.table_entry_bits),
        })

    @property
    def module_name(self) -> str:
        return f"table_builder_t{self.params.tables}_g{self.params.group}_r{self.params.rows_per_builder}"

    @staticmethod
    def build_cycles(group: int) -> int:
        return table_entries(group) - 1

    def elaborate(self, platform):
        p, m = self.params, Module()
        order = build_order(p.group)
        activations = Signal(8 * p.slice_elements, reset_less=True)
        turn, bank = Signal(self.turn_bits), Signal()
        # A move's entry, activation and direction are registers, decoded while the move before it is made: a decoder in
        # front of all T adders would be copied into each.
        active, move, next_move = Signal(), Signal(range(len(order))), Signal(range(len(order)))
        is_last, is_first = Signal(), Signal()
        entry, operand_number, subtract = Signal(entry_bits(p.group)), Signal(range(p.group)), Signal()
        m.d.comb += [is_last.eq(move == len(order) - 1), next_move.eq(Mux(self.load, 0, move + 1))]
        with m.If(active & is_last):
            m.d.sync += active.eq(0)
        with m.If(self.load):
            m.d.sync += [active.eq(1), activations.eq(self.activations), turn.eq(self.turn), bank.eq(self.bank)]
        with m.If(active | self.load):
            m.d.sync += [move.eq(next_move), is_first.eq(self.load)]
            with m.Switch(next_move):
                for n, (address, activation, negative) in enumerate(order):
                    with m.Case(n):
                        m.d.sync += [entry.eq(address), operand_number.eq(activation), subtract.eq(negative)]

        # activation ``operand_number`` of every table
        operands = Cat(activations.word_select(t * p.group, 8) for t in range(p.tables))
        for i in range(1, p.group):
            operands = Mux(operand_number == i, Cat(activations.word_select(t * p.group + i, 8)
                                                    for t in range(p.tables)), operands)

        m.d.sync += self.enable.eq(0)
        with m.If(active):
            m.d.sync += [self.enable.eq(1 << turn), self.address.eq(Cat(bank, entry))]
        for t in range(p.tables):
            total = Signal(p.table_entry_bits, name=f"total_{t}", reset_less=True)
            operand = Signal(p.table_entry_bits, name=f"operand_{t}")
            m.d.comb += operand.eq(operands.word_select(t, 8).as_signed() ^ subtract.replicate(p.table_entry_bits))
            with m.If(active):
                m.d.sync += total.eq(Mux(is_first, entry_offset(p), total) + operand + subtract)
            m.d.comb += self.data.word_select(t, p.table_entry_bits).eq(total)
        return m
