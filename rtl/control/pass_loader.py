"""Reads a pass descriptor into the pass state, checks it, and queues its weight extents."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract import pass_descriptor as layout
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.contract.pass_descriptor import RowFlag
from rtl.contract.register_map import ErrorCause
from rtl.streams import shapes


class PassLoader(wiring.Component):
    """Header, rows, groups, then extents of the pass at ``address``.

    Rows and groups are checked (BAD_PASS, BAD_ROW, WRONG_DESIGN: ``error`` pulses with cause and info and the loader
    stops until
    reset). A row whose token is "the argmax of slot s" gets it from the slot memory, which ``slot_write`` fills.

    ``loaded`` comes with the first extent; the others follow as the stream takes them, while the pass runs. After the
    last one the
    first is queued once more for the next pass, unless NO_PREFETCH; if the next pass begins with another extent,
    ``stale`` is
    raised instead of ``loaded``: the caller resets the units (this loader and the stream among them) and starts again.

    Streams
    -------
    linear_request (out), linear_data (in) : a LinearReader of port 0.
    extents (out) : to the weight stream.

    Ports
    -----
    start, address : a pulse begins; ``loaded`` pulses when the pass can run; ``busy`` until all extents are queued.
    program_address, commands : of the pass's program.
    slot_write, slot, slot_token : the argmax of a slot, from the head.

    Timing: about 20 cycles a row or group, dominated by memory.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "start": In(1), "address": In(params.address_bits), "busy": Out(1),
            "loaded": Out(1), "stale": Out(1), "error": Out(1), "error_cause": Out(8), "error_info": Out(32),
            "program_address": Out(params.address_bits), "commands": Out(24),
            "linear_request": Out(stream.Signature(shapes.linear_request(params))),
            "linear_data": In(stream.Signature(32)),
            "extents": Out(stream.Signature(shapes.extent(params))),
            "pass_state": Out(shapes.pass_state(params)),
            "slot_write": In(1), "slot": In(16), "slot_token": In(32),
        })

    def elaborate(self, platform):
        m = Module()
        p, state = self.params, self.pass_state
        m.submodules.slots = slots = memory.Memory(shape=32, depth=max(2, p.max_slots), init=[])
        slot_port, slot_read = slots.write_port(), slots.read_port(domain="sync")
        m.d.comb += [slot_port.en.eq(self.slot_write), slot_port.addr.eq(self.slot), slot_port.data.eq(self.slot_token)]

        # The words of the entry being read, shifted in from the top: it is complete when its first one has come down.
        extent_words = layout.extent_bytes(p.ports) // 4
        entry_words = max(layout.PASS_HEADER.words, extent_words)
        words = Signal(32 * entry_words)
        left, index = Signal(24), Signal(range(entry_words + 1))

        def entry(kind):
            return shapes.command_layout(kind)(words[32 * (entry_words - kind.words):])

        header, row, group = entry(layout.PASS_HEADER), entry(layout.ROW_ENTRY), entry(layout.GROUP_ENTRY)
        kept = Signal(shapes.command_layout(layout.PASS_HEADER))
        number, next_row = Signal(range(p.rows + 1)), Signal(range(p.rows + 1))
        extent_at = 32 * (entry_words - extent_words)
        extent = self.extents.p
        m.d.comb += [
            extent.beats.eq(words[extent_at:extent_at + 32]),
            *[extent.base[port].eq(words[extent_at + 64 + 64 * port:extent_at + 128 + 64 * port])
              for port in range(p.ports)],
        ]
        # The pass's first extent goes round once for each one read, so that a new one is compared word by word.
        first_extent, differs, has_prefetched = Signal(32 * extent_words), Signal(), Signal()
        # Only from the rows the pass has: a mask bit beyond them is an error.
        row_mask = Signal(32)
        m.d.comb += row_mask.eq((1 << state.rows) - 1)
        where = self.linear_request.p
        m.d.comb += [self.program_address.eq(kept.program_address), self.commands.eq(kept.commands)]

        def fail(cause, info):
            m.d.comb += [self.error.eq(1), self.error_cause.eq(cause.value), self.error_info.eq(info)]
            m.next = "FAILED"

        def collect(count, following):
            """Take ``count`` words into ``words``, then go on."""
            m.d.comb += self.linear_data.ready.eq(1)
            with m.If(self.linear_data.valid):
                m.d.sync += [words.eq(Cat(words[32:], self.linear_data.payload)), index.eq(index + 1)]
                with m.If(index == count - 1):
                    m.d.sync += index.eq(0)
                    m.next = following

        def following():
            """After an extent has been queued: the next one, or the first again."""
            m.d.sync += left.eq(left - 1)
            m.next = "EXTENT WORDS"
            with m.If(left == 1):
                m.next = "PREFETCH"

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(self.start):
                    m.next = "HEADER"
            with m.State("FAILED"):
                pass
            with m.State("HEADER"):
                m.d.comb += [self.linear_request.valid.eq(1), where.address.eq(self.address),
                             where.words.eq(layout.PASS_HEADER.words)]
                with m.If(self.linear_request.ready):
                    m.next = "HEADER WORDS"
            with m.State("HEADER WORDS"):
                collect(layout.PASS_HEADER.words, "HEADER CHECK")
            with m.State("HEADER CHECK"):
                m.d.sync += [
                    kept.eq(header), state.rows.eq(header.rows), state.groups.eq(header.groups),
                    state.list_layer_bytes.eq(header.list_layer_bytes),
                    state.list_head_bytes.eq(header.list_head_bytes),
                    state.logits_address.eq(header.logits_address),
                    state.logits_row_bytes.eq(header.logits_row_bytes),
                    state.results_address.eq(header.results_address), number.eq(0), next_row.eq(0),
                ]
                bad = ((header.magic != layout.PASS_MAGIC) | (header.rows == 0) | (header.rows > p.rows)
                       | (header.groups == 0) | (header.groups > header.rows) | (header.commands == 0)
                       | (header.commands >> 20 != 0))
                with m.If(bad):
                    fail(ErrorCause.BAD_PASS, 0)
                with m.Elif(header.design_id != p.design_hash & 0xFFFFFFFF):
                    fail(ErrorCause.WRONG_DESIGN, 0)
                with m.Else():
                    m.next = "ENTRIES"
            with m.State("ENTRIES"):
                m.d.comb += [
                    self.linear_request.valid.eq(1), where.address.eq(self.address + layout.PASS_HEADER.size_bytes),
                    where.words.eq(state.rows * layout.ROW_ENTRY.words + state.groups * layout.GROUP_ENTRY.words),
                ]
                with m.If(self.linear_request.ready):
                    m.next = "ROW WORDS"
            with m.State("ROW WORDS"):
                collect(layout.ROW_ENTRY.words, "ROW SLOT")
            with m.State("ROW SLOT"):
                m.d.comb += [slot_read.en.eq(1), slot_read.addr.eq(row.token)]
                m.next = "ROW"
            with m.State("ROW"):
                from_slot = (row.flags & RowFlag.TOKEN_FROM_SLOT.value).any()
                for name, value in (("position", row.position), ("slot", row.slot), ("flags", row.flags),
                                    ("visible", row.visible), ("token", Mux(from_slot, slot_read.data, row.token))):
                    m.d.sync += getattr(state, name)[number].eq(value)
                bad = ((row.slot >= p.max_slots) | (from_slot & (row.token >= p.max_slots))
                       | (row.visible & ~row_mask).any())
                with m.If(bad):
                    fail(ErrorCause.BAD_ROW, number)
                with m.Elif(number + 1 == state.rows):
                    m.d.sync += number.eq(0)
                    m.next = "GROUP WORDS"
                with m.Else():
                    m.d.sync += number.eq(number + 1)
                    m.next = "ROW WORDS"
            with m.State("GROUP WORDS"):
                collect(layout.GROUP_ENTRY.words, "GROUP")
            with m.State("GROUP"):
                for name, value in (("first_row", group.first_row), ("group_rows", group.rows), ("past", group.past),
                                    ("list_address", group.list_address), ("blocks", group.blocks)):
                    m.d.sync += getattr(state, name)[number].eq(value)
                tile_log2 = bits_for(p.tile_positions) - 1
                end = Signal(9)
                blocks = Signal(32)
                last = number + 1 == state.groups
                m.d.comb += [end.eq(group.first_row + group.rows),
                             blocks.eq((group.past + group.rows + p.tile_positions - 1) >> tile_log2)]
                m.d.sync += [next_row.eq(end), number.eq(number + 1)]
                bad = ((group.first_row != next_row) | (group.rows == 0) | (end > state.rows)
                       | (last & (end != state.rows)) | (group.blocks != blocks))
                with m.If(bad):
                    fail(ErrorCause.BAD_ROW, 0x100 + number)
                with m.Elif(last):
                    m.d.sync += [number.eq(0), left.eq(kept.extents)]
                    m.next = "EXTENTS"
                with m.Else():
                    m.next = "GROUP WORDS"
            with m.State("EXTENTS"):
                with m.If(left == 0):
                    m.d.comb += self.loaded.eq(1)
                    m.next = "IDLE"
                with m.Else():
                    m.d.comb += [self.linear_request.valid.eq(1), where.address.eq(kept.extents_address),
                                 where.words.eq(kept.extents * extent_words)]
                    m.d.sync += differs.eq(0)
                    with m.If(self.linear_request.ready):
                        m.next = "FIRST EXTENT WORDS"
            with m.State("FIRST EXTENT WORDS"):
                collect(extent_words, "FIRST EXTENT")
                with m.If(self.linear_data.valid):
                    m.d.sync += [first_extent.eq(Cat(first_extent[32:], self.linear_data.payload)),
                                 differs.eq(differs | (first_extent[:32] != self.linear_data.payload))]
            with m.State("FIRST EXTENT"):
                with m.If(has_prefetched & differs):
                    m.d.comb += self.stale.eq(1)
                    m.next = "STALE"
                with m.Else():
                    m.d.comb += self.extents.valid.eq(~has_prefetched)
                    with m.If(self.extents.ready | has_prefetched):
                        m.d.sync += has_prefetched.eq(0)
                        m.d.comb += self.loaded.eq(1)
                        following()
            with m.State("EXTENT WORDS"):
                collect(extent_words, "EXTENT")
            with m.State("EXTENT"):
                m.d.comb += self.extents.valid.eq(1)
                with m.If(self.extents.ready):
                    following()
            with m.State("PREFETCH"):
                # It is read again: to keep it beside the one being read would cost as much as a unit's queue.
                with m.If((kept.flags & layout.PassFlag.NO_PREFETCH.value).any()):
                    m.next = "IDLE"
                with m.Else():
                    m.d.comb += [self.linear_request.valid.eq(1), where.address.eq(kept.extents_address),
                                 where.words.eq(extent_words)]
                    with m.If(self.linear_request.ready):
                        m.next = "PREFETCH WORDS"
            with m.State("PREFETCH WORDS"):
                collect(extent_words, "PREFETCH EXTENT")
            with m.State("PREFETCH EXTENT"):
                m.d.comb += self.extents.valid.eq(1)
                with m.If(self.extents.ready):
                    m.d.sync += has_prefetched.eq(1)
                    m.next = "IDLE"
            with m.State("STALE"):
                pass
        return m
