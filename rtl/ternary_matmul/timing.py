"""When what happens in the engine, derived from the latencies of its parts: one place for every block's offsets.

    issue ─ decoder ─ branch ─ lane front ─ lookup ─ tree … ─ accumulate ─ write
      0                        lane_input    lookup            add          write      (cycles after a beat is taken)

    read row ─ memory ─ operand ─ first entry written … last entry written             (a table's build)
"""

from dataclasses import dataclass

from rtl.contract.design_params import DesignParams
from rtl.ternary_matmul.accumulator import Accumulator
from rtl.ternary_matmul.activation_memory import ActivationMemory
from rtl.ternary_matmul.code_decoder import CodeDecoder
from rtl.ternary_matmul.lane import Lane
from rtl.ternary_matmul.table_builder import TableBuilder

LANES_PER_BRANCH = 4
"""Lanes fed by one register of the broadcast tree; designs of so few rows have none."""


@dataclass(frozen=True)
class EngineTiming:
    """Cycle offsets and intervals of one design."""

    params: DesignParams

    # ---- the sweep: cycles after a beat is taken -------------------------------------------------------------------

    @property
    def branch_cycles(self) -> int:
        return int(self.params.rows > LANES_PER_BRANCH)

    @property
    def lane_input(self) -> int:
        """The lanes are given the codes."""
        return CodeDecoder.latency_cycles(self.params.encoding) + self.branch_cycles

    @property
    def lookup(self) -> int:
        """The tables are read."""
        return self.lane_input + Lane.lookup_cycles

    @property
    def add(self) -> int:
        """The lanes' sums are added to the accumulators."""
        return self.lane_input + Lane.latency_cycles(self.params.tables)

    @property
    def write(self) -> int:
        """The result is written to the accumulators or the drain ring."""
        return self.add + Accumulator.add_cycles

    # ---- the build -------------------------------------------------------------------------------------------------

    @property
    def builders(self) -> int:
        return -(-self.params.rows // self.params.rows_per_builder)

    @property
    def turn_cycles(self) -> int:
        """From one row of a builder to its next; in it the activation memory is read once for each builder.

        A cycle more than builders: what a last read releases must show before the next slice is looked for.
        """
        return max(TableBuilder.build_cycles(self.params.group), self.builders + 1)

    @property
    def first_write(self) -> int:
        """From a row's read to the first entry written."""
        return ActivationMemory.read_latency + TableBuilder.first_write_cycles

    @property
    def built_delay(self) -> int:
        """From a build's last cycle of turns to the first in which the slice's first beat may be taken.

        The last builder starts ``builders − 1`` cycles into a turn; a beat taken then is looked up ``lookup`` later.
        """
        last_write = self.builders - 1 + self.first_write + TableBuilder.build_cycles(self.params.group) - 1
        return max(1, last_write + 1 - self.lookup - (self.turn_cycles - 1))

    free_delay = 2
    """From a slice's last beat to the first row read into its bank."""

    def __post_init__(self) -> None:
        # the first entry must not be written before the bank's last lookup
        assert self.free_delay + self.first_write >= self.lookup

    def interval_cycles(self, steps: int, rows: int) -> float:
        """Cycles a slice takes in the steady state when nobody else stalls: ``steps``, unless those are few.

        Then building the tables takes longer than sweeping them; a bank is built, swept and built again, and there
        are two of them. Tiles of fewer steps than the accumulators' latency wait for their own sums.
        """
        build = -(-rows // self.builders) * self.turn_cycles
        bank = steps + build + self.built_delay + self.free_delay - 2
        revisit = steps - 1 + Accumulator.revisit_cycles if steps < Accumulator.revisit_cycles else steps
        return max(revisit, build, bank / 2)
