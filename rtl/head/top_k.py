"""The k best logits of every row, as a heap in block RAM."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.number_formats import bits_for
from rtl.float32.compare import from_sort_key, sort_key
from rtl.head.argmax import row_logit

ENTRY = data.StructLayout({"index": 32, "bits": 32})


class TopK(wiring.Component):
    """Keeps, row by row, the k largest logits; among equal ones those with lower indices.

    A row's heap has its worst entry on top: most logits are settled by one compare with it. A better logit replaces it
    and sinks, at 3 cycles a level. Every entry is ordered as (float order of its logit, lower index first).

    Parameters
    ----------
    rows     : P, 1 … 32.
    capacity : largest k, 1 … 256.

    Streams and signals
    -------------------
    clear       : pulse: start anew with k = ``k`` (1 … capacity); takes rows·k cycles, ``ready`` of logits is low
    meanwhile.
    logits (in) : logits of all rows, a row's indices rising.
    read (in)   : ``read_row`` is read out: entries (out) then gives its k entries, in no order. Only while no logits
    come.
    idle        : nothing sinks, nothing is cleared.

    Timing: a logit a cycle while nothing is replaced; 2 + 3·(levels) cycles for a replacement.
    """

    def __init__(self, rows: int, capacity: int):
        if not 1 <= capacity <= 256:
            raise ValueError(f"capacity is {capacity}; it must be 1 … 256")
        self.rows, self.capacity = rows, capacity
        super().__init__({
            "k": In(range(capacity + 1)), "clear": In(1),
            "logits": In(stream.Signature(row_logit(rows))),
            "read": In(1), "read_row": In(bits_for(rows - 1)), "entries": Out(stream.Signature(ENTRY)),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        # Rank: larger is better; 0 is below every logit, so an empty entry loses against all.
        rank_bits = 64
        heap_bits = bits_for(self.capacity - 1)  # entries are 1 … k, and the last one may lie at 0
        depth = self.rows << heap_bits
        m.submodules.heap = heap = memory.Memory(shape=rank_bits, depth=depth, init=[])
        write, read = heap.write_port(), heap.read_port(domain="sync")
        # The top of each heap, to be compared with in the cycle in which a logit comes.
        m.submodules.tops = tops = memory.Memory(shape=rank_bits, depth=max(2, self.rows), init=[])
        write_top, top = tops.write_port(), tops.read_port(domain="comb")
        logit = self.logits.p
        rank = Signal(rank_bits)
        m.d.comb += [rank.eq(Cat(~logit.index, sort_key(logit.bits))), top.addr.eq(logit.row)]

        row, hole, k = Signal(bits_for(self.rows - 1)), Signal(heap_bits + 1), Signal(heap_bits + 1)
        sinking, left = Signal(rank_bits), Signal(rank_bits)
        left_child, right_child = hole << 1, (hole << 1) | 1
        child = Signal(rank_bits)
        m.d.comb += [read.en.eq(1), read.addr.eq(Cat(left_child[:heap_bits], row)),
                     write.addr.eq(Cat(hole[:heap_bits], row)),
                     write_top.addr.eq(row), write_top.data.eq(write.data), write_top.en.eq(write.en & (hole == 1))]

        def place(value):
            """Write ``value`` at the hole; the top is kept in ``tops`` as well."""
            m.d.comb += [write.en.eq(1), write.data.eq(value)]

        with m.FSM() as fsm:
            m.d.comb += self.idle.eq(fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.comb += self.logits.ready.eq(~self.clear & ~self.read)
                with m.If(self.clear):
                    m.d.sync += [row.eq(0), hole.eq(1), k.eq(self.k)]
                    m.next = "CLEAR"
                with m.Elif(self.read):
                    m.d.sync += [row.eq(self.read_row), hole.eq(1)]
                    m.next = "READ"
                with m.Elif(self.logits.valid & (rank > top.data)):
                    m.d.sync += [row.eq(logit.row), hole.eq(1), sinking.eq(rank)]
                    m.next = "LEFT"
            with m.State("CLEAR"):
                place(0)
                with m.If(hole == k):
                    m.d.sync += [hole.eq(1), row.eq(row + 1)]
                    with m.If(row == self.rows - 1):
                        m.next = "IDLE"
                with m.Else():
                    m.d.sync += hole.eq(hole + 1)
            with m.State("LEFT"):
                with m.If(left_child > k):
                    place(sinking)
                    m.next = "IDLE"
                with m.Else():
                    m.next = "RIGHT"
            with m.State("RIGHT"):
                m.d.comb += read.addr.eq(Cat(right_child[:heap_bits], row))
                m.d.sync += left.eq(read.data)
                m.next = "COMPARE"
            with m.State("COMPARE"):
                go_right = (right_child <= k) & (read.data < left)
                m.d.comb += child.eq(Mux(go_right, read.data, left))
                with m.If(child < sinking):
                    place(child)
                    m.d.sync += hole.eq(Mux(go_right, right_child, left_child))
                    m.next = "LEFT"
                with m.Else():
                    place(sinking)
                    m.next = "IDLE"
            with m.State("READ"):
                m.d.comb += read.addr.eq(Cat(hole[:heap_bits], row))
                m.next = "ENTRY"
            with m.State("ENTRY"):
                m.d.comb += [
                    read.en.eq(0), self.entries.valid.eq(1), self.entries.p.index.eq(~read.data[:32]),
                    self.entries.p.bits.eq(from_sort_key(read.data[32:])),
                ]
                with m.If(self.entries.ready):
                    m.d.sync += hole.eq(hole + 1)
                    m.next = "READ"
                    with m.If(hole == k):
                        m.next = "IDLE"
        return m
