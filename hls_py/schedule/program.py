"""The command program of a pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hls_py.schedule.shape import ModelShape
from hls_py.schedule.stream_order import Matrix, Norm, gain_banks, gated_tiles, head_order, residual_tiles
from hls_py.schedule.tiles import Tile
from rtl.contract import command_words as words
from rtl.contract.command_words import ActivationFunction, DrainMode, Opcode, QuantiseSource, QuantiseTarget

# Semaphores (bit numbers of wait and signal masks).
RESIDUAL_READY = 0
KV_READY = 2
VECTOR_READY = 3
KV_FREE = 4
OPERANDS_READY = 5
KV_READ = 6

# Activation buffers alternate between the consecutive vectors of a layer.
INPUT_BUFFER, OUTPUT_BUFFER = 0, 1

HEAD_MODES = {Matrix.QUERY: DrainMode.QUERY, Matrix.KEY: DrainMode.KEY, Matrix.VALUE: DrainMode.VALUE}


class _Program:
    """Commands of one pass, appended in issue order."""

    def __init__(self, shape: ModelShape, scale: Callable[[int, Matrix], float]):
        self.shape, self.scale = shape, scale
        self.banks = gain_banks(shape)
        self.words: list[bytes] = []

    def add(self, opcode: Opcode, wait: tuple[int, ...] = (), signal: tuple[int, ...] = (),
            **fields: int | float) -> None:
        layout = words.LAYOUTS[opcode]
        mask = {"wait": sum(1 << s for s in wait), "signal": sum(1 << s for s in signal)}
        self.words.append(layout.pack(opcode=opcode, **mask, **fields))

    def statistics(self, layer: int, norm: Norm | None) -> dict[str, Any]:
        """Fields that say which norm the written vector feeds; None: it is quantised without one."""
        if norm is None:
            return {"has_norm": 0, "gain_bank": 0}
        return {"has_norm": 1, "gain_bank": self.banks[layer, norm]}

    def quantise(self, source: QuantiseSource, width: int, true_width: int, buffer: int, layer: int, norm: Norm | None,
                 wait: int) -> None:
        s = self.shape
        self.add(Opcode.QUANTISE, (wait,), source=source, target=QuantiseTarget.ACTIVATION, activation=buffer,
                 words=s.words(width), row_words=s.words(width), slices=s.slices(width),
                 inverse_count=float(np.float32(1) / np.float32(true_width)), epsilon=s.config.norm_epsilon,
                 **self.statistics(layer, norm))

    def tile(self, tile: Tile, width: int, buffer: int, release: bool) -> None:
        self.add(Opcode.TILE, activation=buffer, release=int(release), steps=tile.steps,
                 slices=self.shape.slices(width))

    # ---- parts of a pass ------------------------------------------------------------------------------------------

    def gather(self) -> None:
        s = self.shape
        tables = TableLayout(s)
        self.add(Opcode.GATHER, (), (RESIDUAL_READY,), words=s.words(s.hidden), row_words=s.words(s.hidden),
                 pairs=s.config.head_dim // 2, embedding_beat=0, embedding_row_beats=tables.embedding_row_beats,
                 rotary_row_beats=tables.rotary_row_beats, rotary_beat=tables.rotary_beat,
                 **self.statistics(0, Norm.INPUT))

    def heads(self, layer: int) -> None:
        s = self.shape
        self.quantise(QuantiseSource.RESIDUAL, s.hidden, s.config.hidden_size, INPUT_BUFFER, layer, Norm.INPUT,
                      RESIDUAL_READY)
        order = head_order(s)
        for n, (matrix, tile) in enumerate(order):
            last = n + 1 == len(order)
            self.tile(tile, s.hidden, INPUT_BUFFER, last)
            self.add(Opcode.DRAIN, (KV_FREE,) if n == 0 and layer else (), (KV_READY,) if last else (),
                     mode=HEAD_MODES[matrix], activation=INPUT_BUFFER, steps=tile.steps, outputs=tile.outputs,
                     head_dim=s.config.head_dim, first_head=tile.first // s.head_width,
                     scale=self.scale(layer, matrix))

    def attention(self, layer: int) -> None:
        s, c = self.shape, self.shape.config
        tile_beats = s.tile.tile_beats
        where = dict(kv_heads=c.kv_heads, head_dim=c.head_dim, layer=layer, block_beats=block_beats(s),
                     layer_beat=layer * c.kv_heads * tile_beats, head_beats=tile_beats)
        norm = Norm.ATTENTION if s.attention_sub_norm else None
        # It isn't told to wait for the heads: it does so by itself, and meanwhile asks for its first KV beats.
        self.add(Opcode.ATTEND, (), (VECTOR_READY, KV_READ), **where, queries_per_kv=c.queries_per_kv,
                 factor=math.log2(math.e) / math.sqrt(c.head_dim), row_words=s.words(s.attention_width),
                 **self.statistics(layer, norm))
        last = layer + 1 == c.layers
        # Attention needs every beat of the ports; behind it they would be idle while its rows are quantised.
        self.add(Opcode.KV_WRITE, (KV_READY, KV_READ), () if last else (KV_FREE,), **where)
        self.quantise(QuantiseSource.VECTOR, s.attention_width, c.heads * c.head_dim, OUTPUT_BUFFER, layer, norm,
                      VECTOR_READY)
        self.residual(layer, Matrix.OUTPUT, s.attention_width, layer, Norm.POST_ATTENTION)

    def residual(self, layer: int, matrix: Matrix, width: int, norm_layer: int, norm: Norm) -> None:
        """Tiles of a matrix whose outputs are added to the residual."""
        s = self.shape
        tiles = residual_tiles(s, matrix)
        for n, tile in enumerate(tiles):
            last = n + 1 == len(tiles)
            self.tile(tile, width, OUTPUT_BUFFER, last)
            self.add(Opcode.DRAIN, (), (RESIDUAL_READY,) if last else (), mode=DrainMode.RESIDUAL, statistics=1,
                     activation=OUTPUT_BUFFER, steps=tile.steps, outputs=tile.outputs, first_word=s.words(tile.first),
                     row_words=s.words(s.hidden), scale=self.scale(layer, matrix), **self.statistics(norm_layer, norm))

    def ffn(self, layer: int) -> None:
        s, c = self.shape, self.shape.config
        self.quantise(QuantiseSource.RESIDUAL, s.hidden, c.hidden_size, INPUT_BUFFER, layer, Norm.POST_ATTENTION,
                      RESIDUAL_READY)
        norm = Norm.FFN if s.ffn_sub_norm else None
        tiles = gated_tiles(s)
        function = ActivationFunction[c.activation.upper()]
        for n, tile in enumerate(tiles):
            last = n + 1 == len(tiles)
            self.tile(tile, s.hidden, INPUT_BUFFER, False)
            self.tile(tile, s.hidden, INPUT_BUFFER, last)
            self.add(Opcode.DRAIN, (), (VECTOR_READY,) if last else (), mode=DrainMode.GATED, statistics=1,
                     activation=INPUT_BUFFER, function=function, steps=tile.steps, outputs=tile.outputs,
                     first_word=s.words(tile.first), row_words=s.words(s.ffn), scale=self.scale(layer, Matrix.GATE),
                     scale2=self.scale(layer, Matrix.UP), **self.statistics(layer, norm))
        self.quantise(QuantiseSource.VECTOR, s.ffn, c.intermediate_size, OUTPUT_BUFFER, layer, norm, VECTOR_READY)
        last_layer = layer + 1 == c.layers
        self.residual(layer, Matrix.DOWN, s.ffn, layer + 1, Norm.FINAL if last_layer else Norm.INPUT)

    def head(self, with_head: bool) -> None:
        """The final norm runs in every pass, so that its gains leave their bank; the head only where it is wanted."""
        s, c = self.shape, self.shape.config
        self.add(Opcode.QUANTISE, (RESIDUAL_READY,), (OPERANDS_READY,) if with_head else (),
                 source=QuantiseSource.RESIDUAL, target=QuantiseTarget.HEAD, words=s.words(s.hidden),
                 row_words=s.words(s.hidden), slices=s.segments,
                 inverse_count=float(np.float32(1) / np.float32(c.hidden_size)), epsilon=c.norm_epsilon,
                 **self.statistics(c.layers, Norm.FINAL))
        if with_head:
            self.add(Opcode.HEAD, (OPERANDS_READY,), vocabulary=c.vocabulary, segments=s.segments,
                     top_k=min(s.params.top_k, c.vocabulary))


class TableLayout:
    """Where embedding and rotary rows lie, in beats from the table base."""

    def __init__(self, shape: ModelShape):
        beat_bytes = shape.params.beat_bytes
        self.embedding_row_beats = -(-2 * shape.hidden // beat_bytes)
        self.rotary_beat = shape.config.vocabulary * self.embedding_row_beats
        self.rotary_row_beats = -(-4 * shape.config.head_dim // beat_bytes)
        self.beats = self.rotary_beat + shape.config.max_positions * self.rotary_row_beats


def block_beats(shape: ModelShape) -> int:
    """Beats of one block of 128 positions: every layer's and KV head's tile."""
    return shape.config.layers * shape.config.kv_heads * shape.tile.tile_beats


def compile_program(shape: ModelShape, scale: Callable[[int, Matrix], float], with_head: bool) -> bytes:
    """Command words of a pass; ``scale(layer, matrix)`` is the matrix's weight scale.

    Raises :class:`hls_py.errors.TellmeError` when the model doesn't fit the design.
    """
    shape.check()
    program = _Program(shape, scale)
    program.gather()
    for layer in range(shape.config.layers):
        program.heads(layer)
        program.attention(layer)
        program.ffn(layer)
    program.head(with_head)
    program.add(Opcode.END)
    return b"".join(program.words)
