"""What the benches of the vector unit share: parameters, a drain ring, memories to load and watch, commands."""

import zlib
from typing import Any

import numpy as np
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from rtl.contract.bitfields import WordLayout
from rtl.contract.design_params import DesignParams
from rtl.streams import shapes

WATCHED = 512


def watched(m: Module, name: str, output, enable, payload) -> None:
    """Payloads of the cycles with ``enable`` as a stream that may be stalled."""
    m.submodules[f"watch_{name}"] = queue = fifo.SyncFIFOBuffered(width=len(payload), depth=WATCHED)
    m.d.comb += [queue.w_en.eq(enable), queue.w_data.eq(payload), output.valid.eq(queue.r_rdy),
                 output.p.eq(queue.r_data), queue.r_en.eq(output.ready)]


def loadable(m: Module, name: str, memory: Memory, load) -> None:
    """``load`` {address, data} writes ``memory``."""
    write = memory.write_port()
    m.d.comb += [load.ready.eq(1), write.en.eq(load.valid), write.addr.eq(load.p.address), write.data.eq(load.p.data)]


def load_layout(depth: int, shape) -> data.StructLayout:
    return data.StructLayout({"address": range(max(2, depth)), "data": shape})


class Ring(wiring.Component):
    """The drain ring: every row's sums of a step, loaded by a stream, read with the engine's latency."""

    def __init__(self, params: DesignParams):
        self.params = params
        acc = data.ArrayLayout(params.accumulator_bits, params.outputs)
        super().__init__({
            "load": In(stream.Signature(load_layout(params.rows * params.drain_steps, acc))),
            "read": In(shapes.drain_read(params)),
        })

    def elaborate(self, platform):
        m = Module()
        params = self.params
        acc = data.ArrayLayout(params.accumulator_bits, params.outputs)
        m.submodules.memory = memory = Memory(shape=acc, depth=params.rows * params.drain_steps, init=[])
        loadable(m, "ring", memory, self.load)
        read = memory.read_port()
        step, row, enable = Signal.like(self.read.step), Signal.like(self.read.row), Signal()
        m.d.sync += [step.eq(self.read.step), row.eq(self.read.row), enable.eq(self.read.enable)]
        # What isn't asked for is rubbish.
        followed = Signal()
        m.d.sync += followed.eq(enable)
        m.d.comb += [read.en.eq(1), read.addr.eq(row * params.drain_steps + step)]
        for n in range(params.outputs):
            m.d.comb += self.read.data[n].eq(Mux(followed, read.data[n].as_signed(), 0x5A5A5A5A))
        return m


def ring_words(params: DesignParams, sums: np.ndarray, base: int) -> dict[str, Any]:
    """Load of a tile's sums [R, steps·Q] from ring address ``base`` on."""
    rows, outputs = sums.shape
    steps = outputs // params.outputs
    step = (base + np.arange(steps)) % params.drain_steps
    address = (np.arange(rows)[:, None] * params.drain_steps + step).reshape(-1)
    return {"address": address, "data": sums.reshape(rows * steps, params.outputs)}


def joined(*batches: dict[str, Any]) -> dict[str, Any]:
    """Payloads of several batches one after another."""
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def commands(layout: WordLayout, *fields: dict[str, Any]) -> np.ndarray:
    """Command words as payloads of a command stream."""
    return np.array([layout.pack_int(**{k: float(v) if isinstance(v, np.floating) else v for k, v in f.items()})
                     for f in fields], object)


def as_words(x: np.ndarray, lanes: int) -> np.ndarray:
    """[…, K] float32 to bit patterns [words, W]."""
    return np.ascontiguousarray(x, np.float32).view(np.uint32).reshape(-1, lanes)


def as_floats(words: np.ndarray) -> np.ndarray:
    return words.astype(np.uint32).view(np.float32)


def same(got: Any, expected: Any, message: str = "") -> None:
    """Equal values, NaN equal to NaN; −0 differs from 0."""
    got, expected = np.asarray(got), np.asarray(expected)
    if expected.dtype.kind == "f":
        got, expected = got.astype(np.float32).view(np.uint32), expected.astype(np.float32).view(np.uint32)
    np.testing.assert_array_equal(got, expected, message)


def seed_of(*values: Any) -> int:
    """A seed that depends on the bench's parameters alone."""
    return zlib.crc32(repr(values).encode())
