"""Two buffers of int8 activations between the vector unit and the table builders."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import bits_for
from rtl.streams import shapes
from rtl.weight_buffer.uram_bank import UramBank

SLICE_BITS = 16


def buffer_base(params: DesignParams, buffer) -> Mux:
    """Address of the first word of a buffer."""
    return Mux(buffer, params.activation_words, 0)


class ActivationMemory(wiring.Component):
    """Word ``base(buffer) + k·R + r`` holds the T·G activations of slice k of row r.

    Parameters: ``activation_words`` of each buffer, T·G = ``slice_elements`` of the design.

    Streams
    -------
    activation (in) : words of a buffer in order, slice by slice, rows 0 … R − 1 within a slice; always ready: whoever
                      fills a buffer waits for its ``free`` first.

    Signals
    -------
    ready_slices (out) : by buffer, slices that are completely written.
    free (out)         : bit b: nothing was written to buffer b since its last release.
    release (in)       : bit b: its words are not needed any more; may coincide with the last read.
    read_* (in, out)   : one word a cycle, ``read_latency`` cycles after ``read_enable``.

    Timing: one word in and one out a cycle; a slice counts as ready in the cycle after its last word.
    """

    read_latency = 1

    def __init__(self, params: DesignParams):
        self.params = params
        self.address_bits = bits_for(2 * params.activation_words - 1)
        super().__init__({
            "activation": In(stream.Signature(shapes.activation_slice(params))),
            "rows": In(bits_for(params.rows)),
            "ready_slices": Out(data.ArrayLayout(SLICE_BITS, 2)), "free": Out(2), "release": In(2),
            "read_enable": In(1), "read_address": In(self.address_bits), "read_data": Out(8 * params.slice_elements),
        })

    def elaborate(self, platform):
        p, m = self.params, Module()
        m.submodules.words = words = UramBank(8 * p.slice_elements, 2 * p.activation_words, self.read_latency)
        payload = self.activation.payload
        addresses = [Signal(self.address_bits, init=p.activation_words * b, name=f"address_{b}") for b in range(2)]
        m.d.comb += [
            self.activation.ready.eq(1),
            words.write_enable.eq(self.activation.valid),
            words.write_address.eq(Mux(payload.buffer, addresses[1], addresses[0])),
            words.write_data.eq(payload.data),
            words.read_enable.eq(self.read_enable), words.read_address.eq(self.read_address),
            self.read_data.eq(words.read_data),
        ]
        is_last_row = payload.row + 1 == self.rows
        for b, address in enumerate(addresses):
            with m.If(self.activation.valid & (payload.buffer == b)):
                m.d.sync += address.eq(address + 1)
                with m.If(is_last_row):
                    m.d.sync += self.ready_slices[b].eq(self.ready_slices[b] + 1)
            with m.If(self.release[b]):
                m.d.sync += [address.eq(address.init), self.ready_slices[b].eq(0)]
        m.d.comb += self.free.eq(Cat(address == address.init for address in addresses))
        return m
