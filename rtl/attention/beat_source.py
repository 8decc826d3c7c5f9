"""Beats for the int8 array: from memory and from the newest tokens, phase by phase."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.attention import kv_shapes
from rtl.attention.phase_sequencer import PhaseSequencer, beat_item
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES
from rtl.streams import shapes


class BeatSource(wiring.Component):
    """Turns phases (see PhaseSequencer) into dot_beats: a byte whose position is below ``past`` comes from memory, any
    other from the newest K or V.

    Streams and ports
    -----------------
    phases, geometry, loaded, weights_ready (in), tiles, scale_tiles, value_phases (out) : of the PhaseSequencer.
    kv_data (in)      : header and K beats, or V beats, of the phases in order, where memory holds any position of them.
    header (out)      : the headers' beats.
    release (out)     : pulses when a (group, KV head)'s last K phase is through.
    weights_free (out): a token when a V phase is through, and two at reset.
    read (out)        : kv_shapes.newest_read; ``read_held``: some read of before is under way or needed.
    beats (out)       : shapes.dot_beat.
    waits_for_memory (out) : the next beat lacks only its bytes from memory. phase_waits (out): the PhaseSequencer's.

    Timing: a beat a cycle, the first one ``latency_cycles`` after its phase came.
    """

    latency_cycles = 6

    def __init__(self, params: DesignParams):
        self.params = params
        phase = kv_shapes.phase(params)
        super().__init__({
            "phases": In(stream.Signature(phase)), "geometry": In(kv_shapes.geometry(params)),
            "loaded": In(stream.Signature(kv_shapes.LOADED)), "release": Out(1),
            "weights_ready": In(stream.Signature(1)), "weights_free": Out(stream.Signature(1)),
            "tiles": Out(stream.Signature(phase)), "scale_tiles": Out(stream.Signature(phase)),
            "value_phases": Out(stream.Signature(kv_shapes.TURN_BITS)),
            "kv_data": In(stream.Signature(8 * params.beat_bytes)),
            "header": Out(stream.Signature(8 * params.beat_bytes)),
            "read": Out(kv_shapes.newest_read(params)), "read_held": Out(1),
            "beats": Out(stream.Signature(shapes.dot_beat(params))),
            "waits_for_memory": Out(1), "phase_waits": Out(3),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.sequencer = sequencer = PhaseSequencer(self.params)
        for name in ("phases", "loaded", "weights_ready", "tiles", "scale_tiles", "value_phases"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(sequencer, name))
        m.d.comb += [sequencer.geometry.eq(self.geometry), self.phase_waits.eq(sequencer.waits)]

        # The stages of a read of the newest bytes, then the one in which they are merged with those from memory.
        stages = [Signal(beat_item(self.params), name=f"stage_{n}") for n in range(kv_shapes.READ_STAGES + 1)]
        valid, advance, sent = Signal(len(stages)), Signal(len(stages)), Signal()
        item, second, second_valid = sequencer.items.p, stages[-1], valid[-1]
        m.d.comb += [
            *(advance[n].eq(~valid[n] | (advance[n + 1] if n + 1 < len(stages) else sent)) for n in range(len(stages))),
            sequencer.items.ready.eq(advance[0]),
            self.read.enable.eq(sequencer.items.valid & advance[0] & item.newest),
            *(getattr(self.read, name).eq(item[name]) for name in ("is_value", "row", "word", "part")),
            self.read.advance.eq(advance[1:]),
            self.read_held.eq(Cat(valid[n] & stage.newest for n, stage in enumerate(stages)).any()),
        ]
        comes = [(sequencer.items.valid, item), *((valid[n], stage) for n, stage in enumerate(stages[:-1]))]
        for n, (is_there, before) in enumerate(comes):
            with m.If(advance[n]):
                m.d.sync += [valid[n].eq(is_there), stages[n].eq(before)]

        needs_memory = second.past != 0
        m.d.comb += [
            self.header.p.eq(self.kv_data.p),
            self.header.valid.eq(second_valid & second.is_header & self.kv_data.valid),
            self.beats.p.data.eq(_merge(m, self.params, second, self.kv_data.p, self.read.data)),
            *(self.beats.p[name].eq(second[name])
              for name in ("operand", "turns", "turn_stride", "first", "last", "tag")),
            self.beats.valid.eq(second_valid & ~second.is_header & (~needs_memory | self.kv_data.valid)),
            self.kv_data.ready.eq(second_valid & Mux(second.is_header, self.header.ready,
                                                     needs_memory & self.beats.ready)),
            sent.eq((self.beats.valid & self.beats.ready) | (self.header.valid & self.header.ready)),
            self.waits_for_memory.eq(second_valid & (second.is_header | needs_memory) & ~self.kv_data.valid),
            self.release.eq(sent & second.ends_queries),
        ]

        tokens = Signal(2, init=2)
        given = self.weights_free.valid & self.weights_free.ready
        m.d.comb += self.weights_free.valid.eq(tokens != 0)
        m.d.sync += tokens.eq(tokens + (sent & second.ends_weights) - given)
        return m


def _merge(m: Module, params: DesignParams, item, memory: Value, newest: Value) -> Signal:
    """Bytes of the item's first ``past`` positions from memory, the others from ``newest``."""
    from_memory = Signal(SEGMENT_BYTES)  # bit n: byte n of a segment (V) or segment n (K)
    merged = Signal(8 * params.beat_bytes)
    m.d.comb += from_memory.eq(Cat(item.past > n for n in range(SEGMENT_BYTES)))
    for s in range(params.segments):
        chosen = Signal(SEGMENT_BYTES, name=f"from_memory_{s}")
        m.d.comb += chosen.eq(Mux(item.is_value, from_memory, from_memory[s].replicate(SEGMENT_BYTES)))
        for n in range(SEGMENT_BYTES):
            byte = s * SEGMENT_BYTES + n
            m.d.comb += merged.word_select(byte, 8).eq(
                Mux(chosen[n], memory.word_select(byte, 8), newest.word_select(byte, 8)))
    return merged
