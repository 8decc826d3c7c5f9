"""Queries into the int8 array's operand memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes
from rtl.attention.queue import Queue
from rtl.attention.row_vectors import RowVectorCounter
from rtl.attention.tile_shapes import HEAD_BITS
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for
from rtl.streams import shapes

LOADS_AHEAD = 4


class OperandLoader(wiring.Component):
    """Copies the queries of a (group, KV head) to the next of two slots, row-vector by row-vector.

    Segment d of row-vector i (row first_row + i div queries_per_kv, query head kv_head·queries_per_kv + i mod
    queries_per_kv) goes to lane i mod A of word ``slot + (i div A)·D/16 + d``.

    Streams and ports
    -----------------
    loads (in)         : kv_shapes.load.
    enable (in)        : queries of ``kv_head`` (out) are there, two cycles after that was told; nothing is read before.
    geometry (in)      : stable while a command runs.
    query_enable, query_word → query_data : of the QueryBuffer.
    operand_write (out): to the array; may have to wait for weights.
    loaded (out)       : kv_shapes.LOADED once the slot is full.
    release (in)       : pulse: the older of the full slots has been used.

    Timing: row_vectors·D/16 + ``overhead_cycles`` a (group, KV head) when nobody stalls.
    """

    overhead_cycles = 7

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "loads": In(stream.Signature(kv_shapes.load(params))), "enable": In(1), "kv_head": Out(HEAD_BITS),
            "geometry": In(kv_shapes.geometry(params)),
            "query_enable": Out(1), "query_word": Out(kv_shapes.WORD_BITS), "query_data": In(8 * SEGMENT_BYTES),
            "operand_write": Out(stream.Signature(shapes.operand_write(params))),
            "loaded": Out(stream.Signature(kv_shapes.LOADED)), "release": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        params, geometry = self.params, self.geometry
        m.submodules.queue = queue = Queue(kv_shapes.load(params), LOADS_AHEAD)
        wiring.connect(m, wiring.flipped(self.loads), queue.i)
        load = queue.o.p
        m.d.comb += self.kv_head.eq(load.kv_head)
        at = RowVectorCounter("at", params, params.row_vectors)
        row_vectors = Signal(range(params.max_row_vectors + 1))
        free, slot = Signal(2, init=2), Signal()
        taken = Signal()
        m.d.sync += free.eq(free + self.release - taken)

        # Addresses: of the KV head's first query head, of the row-vector, of the segment; of the turn's operand words.
        kv_word, vector_word, word = (Signal(kv_shapes.WORD_BITS, name=n) for n in ("kv_word", "vector_word", "word"))
        segment, turn_words = Signal(kv_shapes.SEGMENTS_BITS), Signal(shapes.OPERAND_ADDRESS_BITS)
        slot_base = Mux(slot, kv_shapes.query_slot_words(params), 0)

        # A segment read in one cycle is offered to the array from the next one on.
        offered, write = Signal(), self.operand_write
        advance = ~offered | write.ready
        read = Signal()
        address, lane = Signal(shapes.OPERAND_ADDRESS_BITS), Signal(bits_for(params.row_vectors - 1))
        m.d.comb += [
            self.query_enable.eq(read), self.query_word.eq(word),
            write.valid.eq(offered), write.p.address.eq(address), write.p.lane.eq(lane),
            write.p.mask.eq((1 << SEGMENT_BYTES) - 1), write.p.data.eq(self.query_data),
        ]
        with m.If(advance):
            m.d.sync += offered.eq(read)
        with m.If(read):
            m.d.sync += [address.eq(slot_base + turn_words + segment), lane.eq(at.lane)]

        m.d.comb += [
            self.loaded.p.turns.eq(at.turn),
            # the last turn's lanes twice: one turn or two
            self.loaded.p.value_turns.eq((at.turn << 1) + (at.lane >= params.row_vectors // 2)),
        ]
        is_last_segment = segment == geometry.segments - 1
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [kv_word.eq(load.kv_head * geometry.query_kv_words + load.first_row),
                             row_vectors.eq(load.rows * geometry.queries_per_kv)]
                with m.If(queue.o.valid & (free != 0)):
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.next = "LOOK"
            with m.State("LOOK"):
                with m.If(self.enable):
                    m.next = "START"
            with m.State("START"):
                m.d.sync += [vector_word.eq(kv_word), word.eq(kv_word), segment.eq(0), turn_words.eq(0)]
                m.next = "COPY"
            with m.State("COPY"):
                m.d.comb += read.eq(advance)
                with m.If(advance):
                    m.d.sync += [segment.eq(segment + 1), word.eq(word + geometry.query_stride)]
                    with m.If(is_last_segment):
                        is_last_head = at.head == geometry.queries_per_kv - 1
                        next_word = Mux(is_last_head, kv_word + at.row + 1, vector_word + geometry.query_head_words)
                        m.d.sync += [segment.eq(0), vector_word.eq(next_word), word.eq(next_word)]
                        with m.If(at.lane == params.row_vectors - 1):
                            m.d.sync += turn_words.eq(turn_words + geometry.segments)
                        with m.If(at.is_last(row_vectors)):
                            m.next = "HAND_OVER"
                        with m.Else():
                            at.step(m, row_vectors, geometry.queries_per_kv)
            with m.State("HAND_OVER"):
                m.d.comb += self.loaded.valid.eq(~offered)
                with m.If(self.loaded.valid & self.loaded.ready):
                    at.step(m, row_vectors, geometry.queries_per_kv)
                    m.d.comb += [queue.o.ready.eq(1), taken.eq(1)]
                    m.d.sync += slot.eq(~slot)
                    m.next = "IDLE"
        return m
