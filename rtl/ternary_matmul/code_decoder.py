"""From a beat as it is stored to the engine's codes, once for all rows."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.contract import weight_encodings as encodings
from rtl.contract.design_params import DesignParams
from rtl.contract.weight_encodings import DENSE_WEIGHTS_PER_BYTE, FIVE_BIT
from rtl.streams import shapes

DIGIT_BITS = 2  # a ternary weight as w + 1
AS_LOGIC = {"ram_style": "logic", "rom_style": "distributed"}  # one's word for Yosys, the other's for Vivado


class CodeDecoder(wiring.Component):
    """``codes[q·T + t] = encode_group(weights[q, t])`` of the weights that a beat stores.

    Parameters: ``encoding``, T, Q, G of the design. ``five_bit`` is only registered; ``dense`` looks up five weights
    for each byte, then a code for each G weights.

    Signals: ``valid``, ``beat`` (in); ``codes`` (out), ``latency_cycles`` later and kept until the next.

    Timing: one beat a cycle. Source: rtl/contract/weight_encodings.py.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        super().__init__({
            "valid": In(1), "beat": In(8 * params.beat_bytes), "codes": Out(shapes.code_beat_bits(params)),
        })

    @staticmethod
    def latency_cycles(encoding: str) -> int:
        return 1 if encoding == FIVE_BIT else 2

    def elaborate(self, platform):
        p, m = self.params, Module()
        codes = Signal(len(self.codes), reset_less=True)
        m.d.comb += self.codes.eq(codes)
        if p.encoding == FIVE_BIT:
            with m.If(self.valid):
                m.d.sync += codes.eq(self.beat)
            return m

        # Two tables of constants with a read port for each place; Verilog shows each once.
        m.submodules.weights_of_byte = weights_of_byte = Memory(
            shape=DIGIT_BITS * DENSE_WEIGHTS_PER_BYTE, depth=256, init=[_digits(byte) for byte in range(256)],
            attrs=AS_LOGIC)
        m.submodules.code_of_weights = code_of_weights = Memory(
            shape=p.code_bits, depth=1 << DIGIT_BITS * p.group,
            init=[_code(digits, p.group) for digits in range(1 << DIGIT_BITS * p.group)], attrs=AS_LOGIC)
        used = p.tables * p.outputs * p.group
        used_bytes = -(-used // DENSE_WEIGHTS_PER_BYTE)
        weights = Signal(DIGIT_BITS * DENSE_WEIGHTS_PER_BYTE * used_bytes, reset_less=True)
        has_weights = Signal()
        m.d.sync += has_weights.eq(self.valid)
        for n in range(used_bytes):
            port = weights_of_byte.read_port(domain="comb")
            m.d.comb += port.addr.eq(self.beat.word_select(n, 8))
            with m.If(self.valid):
                m.d.sync += weights.word_select(n, len(port.data)).eq(port.data)
        for n in range(p.tables * p.outputs):
            port = code_of_weights.read_port(domain="comb")
            m.d.comb += port.addr.eq(weights.word_select(n, len(port.addr)))
            with m.If(has_weights):
                m.d.sync += codes.word_select(n, p.code_bits).eq(port.data)
        return m


def _digits(byte: int) -> int:
    return sum((w + 1) << DIGIT_BITS * j for j, w in enumerate(encodings.decode_dense(byte)))


def _code(digits: int, group: int) -> int:
    weights = tuple((digits >> DIGIT_BITS * i & 3) - 1 for i in range(group))
    return encodings.encode_group(weights) if max(weights) < 2 else 0
