"""Keys and values of the pass's own rows, kept on chip: bytes and scales as they go to memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In

from rtl.attention import kv_shapes
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, bits_for
from rtl.streams import shapes

BANKS = SEGMENT_BYTES


class NewestKv(wiring.Component):
    """Written a head segment (16 dims of a row) at a time, read in the beats of the KV layout at any row.

    Sixteen banks have words of B = ``newest_bank_bytes`` bytes. Piece j (dims B·j …) of row r's segment lies in bank
    (r + B·j) mod 16, so that

        K: B consecutive rows of a segment, all pieces      word segment·ceil(R/B) + r div B
        V: 16 consecutive rows of a piece                   word (segment·16/B + j)·ceil(R/16) + r div 16, behind K's

    come at once from sixteen banks, and a segment's pieces go to different ones. A read rotates the banks by the first
    row (V: + B·j): one multiplication by a power of two for a bit of all words.

    Parameters
    ----------
    params : ``rows`` (P), ``segments`` (S), ``max_kv_width``, ``max_heads``. what fits, DesignParams.holds_newest says:
             P rows of max_kv_width always do.

    Streams and ports
    -----------------
    rows (in)       : R, stable during a pass.
    segments (in)   : shapes.head_segment of kind KEY or VALUE; of a row and kind: heads rising from 0, of each all
                      segments, rising.
    scales (in)     : shapes.head_scale of kind KEY or VALUE, any order; always accepted.
    read (in)       : kv_shapes.newest_read.
    scale_read (in) : kv_shapes.newest_scale_read.

    Timing: a segment a cycle; a read a cycle, see newest_read.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "rows": In(bits_for(params.rows)),
            "segments": In(stream.Signature(shapes.head_segment(params))),
            "scales": In(stream.Signature(shapes.head_scale(params))),
            "read": In(kv_shapes.newest_read(params)), "scale_read": In(kv_shapes.newest_scale_read(params)),
        })

    def elaborate(self, platform):
        m = Module()
        self._read(m, self._banks(m))
        self._scales(m)
        return m

    def _banks(self, m: Module) -> list[Value]:
        """The sixteen words of the read of the cycle before, and what is written."""
        params, segment, read = self.params, self.segments.p, self.read
        word_bytes = params.newest_bank_bytes
        log2, pieces = _log2(word_bytes), SEGMENT_BYTES // word_bytes
        key_depth, value_depth = kv_shapes.key_bank_words(params), kv_shapes.value_bank_words(params)
        is_key = segment.kind == shapes.HeadKind.KEY
        is_first = (segment.head == 0) & (segment.segment == 0)
        m.d.comb += self.segments.ready.eq(1)
        key_stride = (self.rows + word_bytes - 1) >> log2
        value_stride = (self.rows + BANKS - 1) >> kv_shapes.BLOCK_LOG2
        key_place = self._place(m, "key", self.segments.valid & is_key, segment.row >> log2, key_stride, is_first)
        value_place = self._place(m, "value", self.segments.valid & ~is_key, segment.row >> kv_shapes.BLOCK_LOG2,
                                  value_stride << _log2(pieces), is_first)
        # Piece j of row r is for the banks of quarter (r div B + j) mod 16/B: each takes the piece that is for it.
        row = Signal(kv_shapes.BLOCK_LOG2)
        m.d.comb += row.eq(segment.row)
        bits, turn = 8 * word_bytes, row[log2:]
        written = _rotate(m, [segment.data.word_select(j, bits) for j in range(pieces)], turn, up=True)
        one_row = kv_shapes.value_rows(params) == 1  # a bank, so that places count pieces
        places = _rotate(m, [Cat(Const(j, _log2(pieces)), value_place[_log2(pieces):]) if one_row else
                             value_place + j * value_stride for j in range(pieces)], turn, up=True)
        addresses = []
        for q in range(pieces):
            address = Signal(range(key_depth + value_depth), name=f"write_{q}")
            m.d.comb += address.eq(Mux(is_key, key_place, key_depth + places[q]))
            addresses.append(address)

        # Where a read's rows lie in the banks from the first one's on, and in those below.
        low_key, low_value = _low(read.row, log2), read.row[:kv_shapes.BLOCK_LOG2]
        key_start, value_start = read.word, key_depth + read.word
        next_key, next_value = key_start, value_start  # with one row a bank, that one is meant
        if kv_shapes.key_rows(params) > 1:
            key_start += read.row >> log2
            next_key = key_start + 1
        if not one_row:
            value_start += read.row >> kv_shapes.BLOCK_LOG2
            next_value = value_start + 1
        starts = [Signal(range(key_depth + value_depth), name=f"read_{name}")
                  for name in ("key", "next_key", "value", "next_value")]
        m.d.comb += [start.eq(value) for start, value in zip(
            starts, (key_start, next_key, value_start, next_value), strict=True)]
        found: list[Value] = []
        for bank in range(BANKS):
            if bank % word_bytes >= params.rows:  # no row ever falls into it
                found.append(Const(0, bits))
                continue
            m.submodules[f"bank_{bank}"] = store = memory.Memory(shape=bits, depth=key_depth + value_depth, init=[])
            write, port = store.write_port(), store.read_port()
            row_of_value = Signal(kv_shapes.BLOCK_LOG2, name=f"row_of_value_{bank}")
            m.d.comb += [
                row_of_value.eq(bank - self._first_bank(0)),
                write.en.eq(self.segments.valid & (_low(segment.row, log2) == bank % word_bytes)),
                write.addr.eq(addresses[bank // word_bytes]), write.data.eq(written[bank // word_bytes]),
                port.en.eq(read.enable),
                port.addr.eq(Mux(read.is_value, Mux(low_value > row_of_value, starts[3], starts[2]),
                                 Mux(low_key > bank % word_bytes, starts[1], starts[0]))),
            ]
            found.append(port.data)
        return found

    def _first_bank(self, row: Value | int) -> Value:
        """Bank of row ``row``'s piece of V that is read."""
        word_bytes = self.params.newest_bank_bytes
        piece = _low(self.read.part >> _log2(kv_shapes.value_parts(self.params)), _log2(SEGMENT_BYTES // word_bytes))
        return row + (piece << _log2(word_bytes))

    def _read(self, m: Module, banks: list[Value]) -> None:
        """Turn the banks' words by the first one's, then put their bytes in a beat's order."""
        params, read, S = self.params, self.read, self.params.segments
        word_bytes, parts = params.newest_bank_bytes, kv_shapes.value_parts(params)
        bits, part_log2 = 8 * word_bytes, _log2(parts)

        # Beside the banks' words, the multipliers' inputs and the products.
        label = data.StructLayout({"is_value": 1, "part": max(part_log2, 1)})
        valid, labels = Signal(kv_shapes.READ_STAGES), [Signal(label, name=f"label_{n}") for n in range(3)]
        factors = [Signal(BANKS, name=f"factor_{n}") for n in range(2)]
        moves = [valid[n] & read.advance[n] for n in range(kv_shapes.READ_STAGES)]
        first = Signal(kv_shapes.BLOCK_LOG2)
        m.d.comb += first.eq(Mux(read.is_value, self._first_bank(read.row), read.row))
        enters = [read.enable | read.is_empty, *moves[:-1]]
        for n, (enter, move) in enumerate(zip(enters, moves, strict=True)):
            with m.If(enter | move):
                m.d.sync += valid[n].eq(enter)
        with m.If(enters[0]):
            m.d.sync += [labels[0].is_value.eq(read.is_value), labels[0].part.eq(_low(read.part, part_log2)),
                         *(factors[0][n].eq(~read.is_empty & (first == -n % BANKS)) for n in range(BANKS))]
        columns = [Signal(BANKS, name=f"column_{bit}") for bit in range(bits)]
        products = [Signal(2 * BANKS, name=f"product_{bit}") for bit in range(bits)]
        with m.If(moves[0]):
            m.d.sync += [labels[1].eq(labels[0]), factors[1].eq(factors[0]),
                         *(column.eq(Cat(word[bit] for word in banks)) for bit, column in enumerate(columns))]
        with m.If(moves[1]):
            m.d.sync += [labels[2].eq(labels[1]),
                         *(product.eq(column * factors[1]) for product, column in zip(products, columns, strict=True))]

        def turned(word: int, byte: int) -> Value:
            return Cat(product[word] | product[BANKS + word] for product in products[8 * byte:8 * byte + 8])

        overlay = read.overlay.replicate(len(read.data) // len(read.overlay))
        beat = Signal(8 * params.beat_bytes)
        with m.If(moves[2]):
            for byte in range(params.beat_bytes):
                s, n = divmod(byte, SEGMENT_BYTES)
                # K: word s + B·j is piece j of row s; V: word n is a piece of row n
                of_key = turned(s + n // word_bytes * word_bytes, n % word_bytes)
                of_value = Cat(turned(n, k * S + s) for k in range(parts))
                if parts > 1:
                    of_value = of_value.word_select(labels[2].part, 8)
                m.d.sync += beat.word_select(byte, 8).eq(
                    Mux(labels[2].is_value, of_value, of_key) | overlay.word_select(byte, 8))
        m.d.comb += read.data.eq(beat)

    def _place(self, m: Module, name: str, write: Value, start: Value, stride: Value, is_first: Value) -> Value:
        """Where the row's next segment goes: from ``start`` on in steps of ``stride``."""
        m.submodules[f"{name}_places"] = places = memory.Memory(
            shape=kv_shapes.WORD_BITS, depth=self.params.rows, init=[])
        read, update = places.read_port(domain="comb"), places.write_port()
        address = Signal(kv_shapes.WORD_BITS, name=f"{name}_address")
        m.d.comb += [
            read.addr.eq(self.segments.p.row), address.eq(Mux(is_first, start, read.data)),
            update.addr.eq(self.segments.p.row), update.data.eq(address + stride), update.en.eq(write),
        ]
        return address

    def _scales(self, m: Module) -> None:
        params, banks, read = self.params, self.params.segments, self.scale_read
        log2, rows = kv_shapes.segments_log2(params), kv_shapes.scale_rows(params)
        scale = self.scales.p
        m.d.comb += self.scales.ready.eq(1)
        of_value = scale.kind == shapes.HeadKind.VALUE
        written, place = scale.head * rows + (scale.row >> log2), read.kv_head * rows
        starts = [Signal(range(params.max_heads * rows), name=f"read_scale_{n}") for n in range(2)]
        low = _low(read.row, log2)
        first, of_read = Signal.like(low), Signal()
        with m.If(read.enable):
            m.d.sync += [first.eq(low), of_read.eq(read.is_value), *(
                starts[n].eq(place + (read.row >> log2) + n if rows > 1 else place) for n in range(2))]
        found: list[Value] = []
        for bank in range(banks):
            if bank >= params.rows:
                found.append(Const(0, 16))
                continue
            m.submodules[f"scales_{bank}"] = store = memory.Memory(shape=16, depth=2 * params.max_heads * rows, init=[])
            write, port = store.write_port(), store.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.scales.valid & (_low(scale.row, log2) == bank)),
                write.addr.eq(Cat(of_value, written)), write.data.eq(scale.scale),
                port.addr.eq(Cat(of_read, Mux(first > bank, starts[1], starts[0]))),
            ]
            found.append(port.data)
        m.d.comb += read.scales.eq(Cat(_rotate(m, found, first)))


def _log2(power_of_two: int) -> int:
    return power_of_two.bit_length() - 1


def _low(value: Value, bits: int) -> Value:
    """Lowest ``bits`` bits as an unsigned number; 0 bits are 0."""
    return value[:bits] if bits else Const(0, 1)


def _rotate(m: Module, words: list[Value], first: Value, up: bool = False) -> list[Value]:
    """Words ``first``, first + 1, … (modulo their number, a power of two); with ``up`` words -first, 1 - first, …"""
    for bit in range(_log2(len(words))):
        step = -(1 << bit) if up else 1 << bit
        turned = [Signal.like(Value.cast(word), name=f"turned_{bit}_{n}") for n, word in enumerate(words)]
        m.d.comb += [to.eq(Mux(first[bit], words[(n + step) % len(words)], words[n])) for n, to in enumerate(turned)]
        words = turned
    return words
