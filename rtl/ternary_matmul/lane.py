"""One row's lookups and adder trees: the part of the engine that is repeated for every row."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import ACTIVATION_MAX, bits_for
from rtl.contract.weight_encodings import entry_bits


def entry_offset(params: DesignParams) -> int:
    """What a table entry is stored with added: half the range of its width (offset binary)."""
    return 1 << params.table_entry_bits - 1


def sum_bits(params: DesignParams, leaves: int) -> int:
    """Width of the sum of ``leaves`` looked-up values in offset binary."""
    return bits_for(leaves * (entry_offset(params) + ACTIVATION_MAX * params.group + 1))


class Lane(wiring.Component):
    """``sums[q] + carries[q] = Σ_t ±table_t[entry(q, t)] + T·offset`` for one row and T·Q codes a cycle.

    A negative code adds ``~entry + 1``. The complement is an XOR in front of an adder; the 1s are the carry inputs of
    the tree's T − 1 adders and of the accumulating adder behind it, to which the last one is handed as ``carries[q]``.

    Parameters: T = ``tables``, Q = ``outputs`` and ``group`` of the design.

    Signals
    -------
    valid, bank, codes (in) : code (q, t) at bit (q·T + t)·code_bits, entry low and sign on top; ``bank`` of the tables.
    table_* (in)            : a cycle with ``table_enable`` writes one entry of every table; address = {entry, bank},
                              table t at bit t·table_entry_bits. Entries nobody writes (0 above all) count as zero.
    sums, carries (out)     : sum q at bit q·sum_bits, ``latency_cycles`` after the codes, kept until the next.

    Timing: one set of codes a cycle. Codes are looked up ``lookup_cycles`` after they are given; an entry written in a
    cycle is seen by lookups from the next one on. Stages without new data keep their registers.

    Number format: entries in offset binary of ``table_entry_bits`` (the number plus ``offset`` = 2**(bits − 1)), sums
    unsigned and exact. Complement and addition keep the offset, so that no adder extends a sign; the T·offset of a
    slice is taken off where the accumulators start.
    """

    lookup_cycles = 1

    def __init__(self, params: DesignParams):
        self.params = params
        self.sum_bits = sum_bits(params, params.tables)
        super().__init__({
            "valid": In(1), "bank": In(1), "codes": In(params.tables * params.outputs * params.code_bits),
            "table_enable": In(1), "table_address": In(entry_bits(params.group) + 1),
            "table_data": In(params.tables * params.table_entry_bits),
            "sums": Out(params.outputs * self.sum_bits), "carries": Out(params.outputs),
        })

    @property
    def module_name(self) -> str:
        return f"lane_t{self.params.tables}_q{self.params.outputs}_g{self.params.group}"

    @staticmethod
    def latency_cycles(tables: int) -> int:
        """From codes to sums: front register, lookup register, one register a level of the tree."""
        return Lane.lookup_cycles + 1 + (tables - 1).bit_length()

    def elaborate(self, platform):
        p, m = self.params, Module()
        latency, bits = self.latency_cycles(p.tables), p.table_entry_bits
        codes = Signal(len(self.codes), reset_less=True)
        bank = Signal(reset_less=True)
        with m.If(self.valid):
            m.d.sync += [codes.eq(self.codes), bank.eq(self.bank)]
        stages = [Signal(name=f"valid_{n}") for n in range(1, latency)]  # stage n holds something new
        for before, stage in zip([self.valid, *stages], stages):
            m.d.sync += stage.eq(before)

        # leaves[q][t]: an entry, complemented where the code is negative, and the 1 that is then still missing
        leaves: list[list[tuple[Value, Value]]] = [[] for _ in range(p.outputs)]
        for t in range(p.tables):
            depth = 2 << entry_bits(p.group)
            memory = Memory(shape=bits, depth=depth, init=[entry_offset(p)] * depth)
            m.submodules[f"table_{t}"] = memory
            write = memory.write_port()
            m.d.comb += [write.en.eq(self.table_enable), write.addr.eq(self.table_address),
                         write.data.eq(self.table_data.word_select(t, bits))]
            for q in range(p.outputs):
                code = codes.word_select(q * p.tables + t, p.code_bits)
                read = memory.read_port(domain="comb")
                m.d.comb += read.addr.eq(Cat(bank, code[:-1]))
                entry = Signal(bits, name=f"entry_{q}_{t}", reset_less=True)
                negative = Signal(name=f"negative_{q}_{t}", reset_less=True)
                with m.If(stages[self.lookup_cycles - 1]):
                    m.d.sync += [entry.eq(read.data), negative.eq(code[-1])]
                leaves[q].append((entry ^ negative.replicate(bits), negative))

        for q in range(p.outputs):
            total, carry = self._tree(m, leaves[q], stages[self.lookup_cycles:], f"sum_{q}")
            m.d.comb += [self.sums.word_select(q, self.sum_bits).eq(total), self.carries[q].eq(carry)]
        return m

    def _tree(self, m: Module, nodes: list[tuple[Value, Value]], stages: list[Signal],
              name: str) -> tuple[Value, Value]:
        """Sum of ``nodes`` and the carry left over, one register a level."""
        for level, stage in enumerate(stages, 1):
            above = []
            for n in range(0, len(nodes), 2):
                leaves = min(2 << level - 1, self.params.tables)
                total = Signal(sum_bits(self.params, leaves), name=f"{name}_{level}_{n // 2}", reset_less=True)
                carry = Signal(name=f"{name}_carry_{level}_{n // 2}", reset_less=True)
                with m.If(stage):
                    if n + 1 < len(nodes):
                        (a, a_carry), (b, b_carry) = nodes[n:n + 2]
                        m.d.sync += [total.eq(a + b + a_carry), carry.eq(b_carry)]
                    else:
                        m.d.sync += [total.eq(nodes[n][0]), carry.eq(nodes[n][1])]
                above.append((total, carry))
            nodes = above
        return nodes[0]
