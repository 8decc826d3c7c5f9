"""Who is attended to: every (group, KV head) of a command, and the numbers of its blocks from memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes, tile_shapes
from rtl.attention.queue import Queue
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes

LAYER_BITS = 16
QUEUE_DEPTH = 4
"""(group, KV head) pairs whose lists are asked for ahead of their user."""
START = data.StructLayout({"layer": LAYER_BITS, "kv_heads": tile_shapes.HEAD_BITS})


def group_fields(params: DesignParams) -> data.StructLayout:
    """What a BlockList needs of a group."""
    return data.StructLayout({
        "first_row": shapes.row_bits(params), "rows": bits_for(params.rows), "past": 32,
        "list_address": params.address_bits,
    })


class BlockList(wiring.Component):
    """Asks for the block list of every group (outer) and KV head (inner), newest block first.

    A list lies at ``list_address[group] + layer·list_layer_bytes + kv_head·list_head_bytes``, 32 bits a block; it has
    ceil((past + rows)/128) of them.

    Parameters
    ----------
    params       : ``rows``, ``address_bits``.
    written_only : ask only for the blocks that take new positions, rather than for all of a list.

    Streams and ports
    -----------------
    pass_state (in)      : shapes.pass_state; of the groups' fields only what comes by ``fields`` is used:
    group, group_enable → fields, group_grant : group_fields of ``group`` in the same cycle, if granted.
    start (in)           : {layer, kv_heads}, one a command; taken when the one before is worked off.
    list_request (out)   : to a LinearReader, whose data the user of ``group_heads`` takes, ``blocks`` words for each.
    group_heads (out)    : kv_shapes.group_head.

    Timing: LAYER_BITS + 3 cycles from ``start`` to the first, then a pair every two cycles.
    """

    def __init__(self, params: DesignParams, written_only: bool):
        self.params, self.written_only = params, written_only
        super().__init__({
            "pass_state": In(shapes.pass_state(params)),
            "group": Out(range(max(params.rows, 2))), "group_enable": Out(1), "group_grant": In(1),
            "fields": In(group_fields(params)),
            "start": In(stream.Signature(START)),
            "list_request": Out(stream.Signature(shapes.linear_request(params))),
            "group_heads": Out(stream.Signature(kv_shapes.group_head(params))),
        })

    def elaborate(self, platform):
        m = Module()
        state = self.pass_state
        group, kv_head, kv_heads = self.group, Signal(8), Signal(8)
        layer, step, layer_bytes = Signal(LAYER_BITS), Signal(range(LAYER_BITS + 1)), Signal(self.params.address_bits)
        address, request = Signal(self.params.address_bits), self.list_request
        m.submodules.queue = queue = Queue(kv_shapes.group_head(self.params), QUEUE_DEPTH)
        wiring.connect(m, wiring.flipped(self.group_heads), queue.o)

        first_row, rows, past, blocks = (Signal.like(queue.i.p[name])
                                         for name in ("first_row", "rows", "past", "blocks"))
        is_last_head, is_last_group = kv_head == kv_heads - 1, group == state.groups - 1
        m.d.comb += [
            queue.i.p.first_row.eq(first_row), queue.i.p.rows.eq(rows), queue.i.p.past.eq(past),
            queue.i.p.blocks.eq(blocks), queue.i.p.kv_head.eq(kv_head), queue.i.p.last.eq(is_last_head & is_last_group),
            request.p.address.eq(address), request.p.words.eq(blocks),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.start.ready.eq(1)
                with m.If(self.start.valid):
                    m.d.sync += [layer.eq(self.start.p.layer), kv_heads.eq(self.start.p.kv_heads),
                                 layer_bytes.eq(0), step.eq(0), group.eq(0)]
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):  # the layer's highest bit first
                m.d.sync += [layer_bytes.eq((layer_bytes << 1) + Mux(layer[-1], state.list_layer_bytes, 0)),
                             layer.eq(layer << 1), step.eq(step + 1)]
                with m.If(step == LAYER_BITS - 1):
                    m.next = "GROUP"
            with m.State("GROUP"):
                m.d.comb += self.group_enable.eq(1)
                m.d.sync += [
                    first_row.eq(self.fields.first_row), rows.eq(self.fields.rows), past.eq(self.fields.past),
                    address.eq(self.fields.list_address), kv_head.eq(0),
                ]
                with m.If(self.group_grant):
                    m.next = "LIST"
            with m.State("LIST"):
                first_tile = past >> kv_shapes.TILE_LOG2 if self.written_only else 0
                last_tile = (past + rows - 1)[:32] >> kv_shapes.TILE_LOG2
                m.d.sync += [blocks.eq(last_tile - first_tile + 1), address.eq(address + layer_bytes)]
                m.next = "HEAD"
            with m.State("HEAD"):
                m.d.comb += request.valid.eq(1)
                with m.If(request.ready):
                    m.next = "HAND_OVER"
            with m.State("HAND_OVER"):
                m.d.comb += queue.i.valid.eq(1)
                with m.If(queue.i.ready):
                    m.d.sync += [kv_head.eq(kv_head + 1), address.eq(address + state.list_head_bytes)]
                    m.next = "HEAD"
                    with m.If(is_last_head):
                        m.d.sync += group.eq(group + 1)
                        m.next = "GROUP"
                        with m.If(is_last_group):
                            m.next = "IDLE"
        return m
