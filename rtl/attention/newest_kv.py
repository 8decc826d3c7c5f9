"""Keys and values of the pass's own rows, kept on chip: bytes and scales as they go to memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In

from rtl.attention import kv_shapes
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for
from rtl.streams import shapes


class NewestKv(wiring.Component):
    """Written a head segment (16 dims of a row) at a time, read in the beats of the KV layout at any row.

    K lies in S banks, row r in bank r mod S, so that S consecutive rows come at once; V lies in 16 banks by r mod 16,
    in words of ``value_word_bytes`` dims. A read rotates the banks by the first row. Word w of row r of a bank of B
    sits at w·ceil(rows/B) + r div B, so that fewer rows leave room for wider ones.

    Parameters
    ----------
    params : ``rows`` (P), ``segments`` (S), ``max_kv_width``, ``max_heads``. R rows of B bytes of keys fit when
             B/16·ceil(R/S) ≤ key_bank_words and B/value_word_bytes·ceil(R/16) ≤ value_bank_words: P rows of
             max_kv_width always do.

    Streams and ports
    -----------------
    rows (in)         : R, stable during a pass.
    segments (in)     : shapes.head_segment of kind KEY or VALUE; of a row and kind: heads rising from 0, of each all
                        segments, rising.
    scales (in)       : shapes.head_scale of kind KEY or VALUE, any order; always accepted.
    read (in)         : kv_shapes.newest_read.
    scale_reads[i] (in) : kv_shapes.newest_scale_read, two users.

    Timing: a K segment a cycle, a V segment 16/value_word_bytes cycles; a read a cycle, data one cycle later.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "rows": In(bits_for(params.rows)),
            "segments": In(stream.Signature(shapes.head_segment(params))),
            "scales": In(stream.Signature(shapes.head_scale(params))),
            "read": In(kv_shapes.newest_read(params)),
            "scale_reads": In(kv_shapes.newest_scale_read(params)).array(2),
        })

    def elaborate(self, platform):
        m = Module()
        is_value, row, part = Signal(), Signal(kv_shapes.ROW_INDEX_BITS), Signal(2)
        with m.If(self.read.enable):
            m.d.sync += [is_value.eq(self.read.is_value), row.eq(self.read.row), part.eq(self.read.part)]
        is_key_segment = self.segments.p.kind == shapes.HeadKind.KEY
        keys = self._keys(m, row, self.segments.valid & is_key_segment)
        values, last_word = self._values(m, row, part, self.segments.valid & ~is_key_segment)
        m.d.comb += [self.segments.ready.eq(is_key_segment | last_word), self.read.data.eq(Mux(is_value, values, keys))]
        self._scales(m)
        return m

    def _keys(self, m: Module, row: Value, write: Value) -> Value:
        """Beat of S rows of 16 dims, for the read of the cycle before."""
        params, banks = self.params, self.params.segments
        log2 = kv_shapes.segments_log2(params)
        segment = self.segments.p
        stride = (self.rows + banks - 1) >> log2
        is_first = (segment.head == 0) & (segment.segment == 0)
        address = self._place(m, "key", write, segment.row >> log2, stride, is_first)
        words = []
        for bank in range(banks):
            store = self._bank(m, f"key_{bank}", bank, 8 * SEGMENT_BYTES, kv_shapes.key_bank_words(params), log2,
                               enable=self.read.enable & ~self.read.is_value)
            if store is None:
                words.append(Const(0, 8 * SEGMENT_BYTES))
                continue
            port, found = store
            m.d.comb += [port.en.eq(write & (_low(segment.row, log2) == bank)), port.addr.eq(address),
                         port.data.eq(segment.data)]
            words.append(found)
        return _rotate(m, words, row[:log2])

    def _values(self, m: Module, row: Value, part: Value, write: Value) -> tuple[Value, Value]:
        """Beat of S dims of 16 rows, for the read of the cycle before; and whether a segment's last word is written."""
        params, banks = self.params, SEGMENT_BYTES
        word_bytes, segments = kv_shapes.value_word_bytes(params), params.segments
        writes = SEGMENT_BYTES // word_bytes
        segment = self.segments.p
        number = Signal(range(max(writes, 2)))
        is_last = number == writes - 1
        with m.If(write):
            m.d.sync += number.eq(Mux(is_last, 0, number + 1))
        stride = (self.rows + banks - 1) >> kv_shapes.BLOCK_LOG2
        address = self._place(m, "value", write, segment.row >> kv_shapes.BLOCK_LOG2, stride,
                              (segment.head == 0) & (segment.segment == 0) & (number == 0))
        lanes = []
        for bank in range(banks):
            store = self._bank(m, f"value_{bank}", bank, 8 * word_bytes, kv_shapes.value_bank_words(params),
                               kv_shapes.BLOCK_LOG2, enable=self.read.enable & self.read.is_value)
            if store is None:
                lanes.append(Const(0, 8 * segments))
                continue
            port, found = store
            m.d.comb += [port.en.eq(write & (_low(segment.row, kv_shapes.BLOCK_LOG2) == bank)), port.addr.eq(address),
                         port.data.eq(segment.data.word_select(number, 8 * word_bytes))]
            lanes.append(found.word_select(_low(part, _log2(word_bytes // segments)), 8 * segments))
        rotated = Signal(8 * params.beat_bytes)
        m.d.comb += rotated.eq(_rotate(m, lanes, row[:kv_shapes.BLOCK_LOG2]))
        return Cat(rotated.word_select(j * segments + s, 8) for s in range(segments) for j in range(banks)), is_last

    def _place(self, m: Module, name: str, write: Value, start: Value, stride: Value, is_first: Value) -> Value:
        """Where the row's next word goes: from ``start`` on in steps of ``stride``."""
        m.submodules[f"{name}_places"] = places = memory.Memory(
            shape=kv_shapes.WORD_BITS, depth=self.params.rows, init=[])
        read, update = places.read_port(domain="comb"), places.write_port()
        address = Signal(kv_shapes.WORD_BITS, name=f"{name}_address")
        m.d.comb += [
            read.addr.eq(self.segments.p.row), address.eq(Mux(is_first, start, read.data)),
            update.addr.eq(self.segments.p.row), update.data.eq(address + stride), update.en.eq(write),
        ]
        return address

    def _bank(self, m: Module, name: str, bank: int, width: int, depth: int, log2: int, enable: Value):
        """A bank's write port and what was read from it; None for a bank that no row ever falls into."""
        if bank >= self.params.rows:
            return None
        m.submodules[name] = store = memory.Memory(shape=width, depth=depth, init=[])
        port = store.read_port()
        first = self.read.row
        row = (first >> log2) + (_low(first, log2) > bank)
        m.d.comb += [port.en.eq(enable), port.addr.eq(self.read.word + row)]
        return store.write_port(), port.data

    def _scales(self, m: Module) -> None:
        params, banks = self.params, self.params.segments
        log2, rows = kv_shapes.segments_log2(params), kv_shapes.key_rows(params)
        scale = self.scales.p
        m.d.comb += self.scales.ready.eq(1)
        found: dict[str, list[list[Value]]] = {"key": [[], []], "value": [[], []]}
        for kind, number in (("key", shapes.HeadKind.KEY), ("value", shapes.HeadKind.VALUE)):
            for bank in range(banks):
                if bank >= params.rows:
                    for user in found[kind]:
                        user.append(Const(0, 16))
                    continue
                m.submodules[f"{kind}_scales_{bank}"] = store = memory.Memory(
                    shape=16, depth=params.max_heads * rows, init=[])
                write = store.write_port()
                m.d.comb += [
                    write.en.eq(self.scales.valid & (scale.kind == number) & (_low(scale.row, log2) == bank)),
                    write.addr.eq(scale.head * rows + (scale.row >> log2)), write.data.eq(scale.scale),
                ]
                for user, read in zip(found[kind], self.scale_reads, strict=True):
                    port = store.read_port(domain="comb")
                    row = (read.row >> log2) + (_low(read.row, log2) > bank)
                    m.d.comb += port.addr.eq(read.kv_head * rows + row)
                    user.append(port.data)
        for kind, users in found.items():
            for banks_of_user, read in zip(users, self.scale_reads, strict=True):
                m.d.comb += read.scales[kind].eq(_rotate(m, banks_of_user, read.row[:log2]))


def _log2(power_of_two: int) -> int:
    return power_of_two.bit_length() - 1


def _low(value: Value, bits: int) -> Value:
    """Lowest ``bits`` bits as an unsigned number; 0 bits are 0."""
    return value[:bits] if bits else Const(0, 1)


def _rotate(m: Module, words: list[Value], first: Value) -> Value:
    """Words ``first``, first + 1, … (modulo their number, a power of two), the lowest one first."""
    for bit in range(_log2(len(words))):
        step = 1 << bit
        turned = [Signal.like(Value.cast(word), name=f"turned_{bit}_{n}") for n, word in enumerate(words)]
        m.d.comb += [to.eq(Mux(first[bit], words[(n + step) % len(words)], words[n])) for n, to in enumerate(turned)]
        words = turned
    return Cat(words)
