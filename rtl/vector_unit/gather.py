"""GATHER: embedding rows and rotary rows of a pass's rows."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.command_words import GATHER
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes
from rtl.vector_unit.beat_words import BeatWords
from rtl.vector_unit.head_path import rotary_depth, rotary_words_log2
from rtl.vector_unit.statistics import statistics_word
from rtl.vector_unit.word_memory import float_words, write_port

BFLOAT16_BITS = 16
FLOAT_BITS = 32


class Gather(wiring.Component):
    """residual[r] = embedding[token[r]], bfloat16 made float32; rotary[r][i] = (cos, sin) pairs of position[r].

    Streams
    -------
    command (in)        : GATHER command words.
    table_request (out) : {beat, beats} relative to the table base: row 0's embedding, row 0's rotary row, row 1's …
    table_data (in)     : the beats asked for, in order.
    statistics (out)    : the residual's words, has_norm and gain_bank as in the command.

    Ports
    -----
    rows, token[P], position[P] : of the pass; ``token`` is resolved.
    residual_write              : write port; waits while ``residual_taken`` says that another one writes.
    rotary_write                : write port of the rotary memory: word i of a row holds pairs i·W/2 … (cos, sin).
    done, busy.

    Timing: a word a cycle; ``interval_cycles`` when memory keeps up. A row whose rotary_row_beats is 0 has none.
    Number format: exact (bfloat16 is a float32's upper half).
    """

    def __init__(self, params: DesignParams):
        self.params = params
        word = float_words(params.vector_lanes)
        super().__init__({
            "command": In(stream.Signature(shapes.COMMAND_BITS)), "done": Out(1), "busy": Out(1),
            "rows": In(bits_for(params.rows)),
            "token": In(data.ArrayLayout(32, params.rows)), "position": In(data.ArrayLayout(32, params.rows)),
            "table_request": Out(stream.Signature(shapes.STRIPED_REQUEST)),
            "table_data": In(stream.Signature(8 * params.beat_bytes)),
            "residual_write": Out(write_port(params.residual_words, word)), "residual_taken": In(1),
            "rotary_write": Out(write_port(rotary_depth(params), word)),
            "statistics": Out(stream.Signature(statistics_word(params))),
        })
        # A beat is cut into words of the rotary memory for both, and those again into words of bfloat16.
        part_bits = min(8 * params.beat_bytes, FLOAT_BITS * params.vector_lanes)
        self.beat_parts = BeatWords(8 * params.beat_bytes, part_bits)
        self.embedding_words, self.rotary_words = (
            BeatWords(part_bits, bits * params.vector_lanes) for bits in (BFLOAT16_BITS, FLOAT_BITS))

    def interval_cycles(self, rows: int, command: dict[str, int]) -> int:
        """From the first word written to ``done``, when nobody stalls (fields as in GATHER)."""
        row = (self.embedding_words.words_per_beat * command["embedding_row_beats"]
               + self.rotary_words.words_per_beat * command["rotary_row_beats"])
        return rows * row * self.beat_parts.words_per_beat

    def elaborate(self, platform):
        m = Module()
        params = self.params
        row_bits = shapes.row_bits(params)
        command = Signal(shapes.command_layout(GATHER))
        has_rotary = command.rotary_row_beats != 0

        # --- requests: base + index·beats, row by row, embedding then rotary ---
        row, of_rotary, asking = Signal(row_bits), Signal(), Signal()
        index, product = Signal(32), Signal(32)
        rows_last = row + 1 == self.rows
        m.d.comb += index.eq(Mux(of_rotary, self.position[row], self.token[row]))
        stride = Mux(of_rotary, command.rotary_row_beats, command.embedding_row_beats)
        m.d.sync += product.eq(index * stride)
        m.d.comb += [
            self.table_request.p.beat.eq(Mux(of_rotary, command.rotary_beat, command.embedding_beat) + product),
            self.table_request.p.beats.eq(stride),
        ]
        with m.FSM(name="requests"):
            with m.State("idle"):
                m.d.sync += [row.eq(0), of_rotary.eq(0)]
                with m.If(asking):
                    m.next = "multiply"
            with m.State("multiply"):
                m.next = "ask"
            with m.State("ask"):
                m.d.comb += self.table_request.valid.eq(1)
                with m.If(self.table_request.ready):
                    m.next = "multiply"
                    m.d.sync += of_rotary.eq(~of_rotary & has_rotary)
                    with m.If(of_rotary | ~has_rotary):
                        m.d.sync += row.eq(row + 1)
                        with m.If(rows_last):
                            m.next = "idle"

        # --- beats to the converter that they are for ---
        m.submodules.parts = parts = self.beat_parts
        m.submodules.embedding = embedding = self.embedding_words
        m.submodules.rotary = rotary = self.rotary_words
        beat, to_rotary = Signal(16), Signal()
        beat_last = beat + 1 == Mux(to_rotary, command.rotary_row_beats, command.embedding_row_beats)
        m.d.comb += [
            parts.i.valid.eq(self.busy & self.table_data.valid), self.table_data.ready.eq(self.busy & parts.i.ready),
            parts.i.p.data.eq(self.table_data.p), parts.i.p.last.eq(beat_last),
            parts.o.ready.eq(Mux(to_rotary, rotary.i.ready, embedding.i.ready)),
        ]
        for words, chosen in ((embedding, ~to_rotary), (rotary, to_rotary)):
            m.d.comb += [words.i.valid.eq(parts.o.valid & chosen), words.i.p.eq(parts.o.p)]
        with m.If(self.table_data.valid & self.table_data.ready):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat_last):
                m.d.sync += [beat.eq(0), to_rotary.eq(~to_rotary & has_rotary)]

        # --- the residual and its statistics ---
        lanes = params.vector_lanes
        word, address, row_base, at_row = Signal(16), Signal(16), Signal(16), Signal(row_bits)
        wanted, fire, embedded = Signal(), Signal(), Signal()
        bits = Signal(BFLOAT16_BITS * lanes)
        m.d.comb += [
            bits.eq(embedding.o.p.data), wanted.eq(word < command.words), address.eq(row_base + word),
            self.statistics.valid.eq(embedding.o.valid & wanted & ~self.residual_taken),
            self.statistics.p.row.eq(at_row), self.statistics.p.word.eq(word),
            self.statistics.p.has_norm.eq(command.has_norm), self.statistics.p.gain_bank.eq(command.gain_bank),
            embedding.o.ready.eq(~wanted | (self.statistics.ready & ~self.residual_taken)),
            fire.eq(embedding.o.valid & embedding.o.ready),
            self.residual_write.enable.eq(fire & wanted), self.residual_write.address.eq(address),
        ]
        for n in range(lanes):
            value = Cat(Const(0, FLOAT_BITS - BFLOAT16_BITS), bits.word_select(n, BFLOAT16_BITS))
            m.d.comb += [self.residual_write.data[n].eq(value), self.statistics.p.data[n].eq(value)]
        with m.If(fire):
            m.d.sync += word.eq(word + 1)
            with m.If(embedding.o.p.last):
                m.d.sync += [word.eq(0), row_base.eq(row_base + command.row_words), at_row.eq(at_row + 1)]
                with m.If(at_row + 1 == self.rows):
                    m.d.sync += embedded.eq(1)

        # --- the rotary memory ---
        words_log2 = rotary_words_log2(params)
        rotary_word, rotary_row, rotated = Signal(16), Signal(row_bits), Signal()
        m.d.comb += [
            rotary.o.ready.eq(1),
            self.rotary_write.enable.eq(rotary.o.valid & ((rotary_word >> words_log2) == 0)),
            self.rotary_write.address.eq(Cat(rotary_word[:words_log2], rotary_row)),
            self.rotary_write.data.eq(rotary.o.p.data),
        ]
        with m.If(rotary.o.valid):
            m.d.sync += rotary_word.eq(rotary_word + 1)
            with m.If(rotary.o.p.last):
                m.d.sync += [rotary_word.eq(0), rotary_row.eq(rotary_row + 1)]
                with m.If(rotary_row + 1 == self.rows):
                    m.d.sync += rotated.eq(1)

        # --- the command ---
        m.d.comb += self.busy.eq(~self.command.ready)
        with m.FSM(name="command"):
            with m.State("idle"):
                m.d.comb += self.command.ready.eq(1)
                m.d.sync += [embedded.eq(0), rotated.eq(0), beat.eq(0), to_rotary.eq(0), word.eq(0), row_base.eq(0),
                             at_row.eq(0), rotary_word.eq(0), rotary_row.eq(0)]
                with m.If(self.command.valid):
                    m.d.sync += command.eq(self.command.p)
                    m.next = "start"
            with m.State("start"):
                m.d.comb += asking.eq(1)
                m.next = "run"
            with m.State("run"):
                with m.If(embedded & (rotated | ~has_rotary)):
                    m.d.comb += self.done.eq(1)
                    m.next = "idle"
        return m
