"""Writes an image folder: the weight stream, the tables, the program and the manifest of one model on one design."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hls_py.design_folder import IMAGE_FILES, design_text
from hls_py.golden.ternary_matmul.encoding import encode_tile
from hls_py.model_import.model import Layer, Model
from hls_py.model_import.parts import Rows
from hls_py.output_folder import replace_folder
from hls_py.packing.matrices import arranged_gains, arranged_matrix, pad_to, quantise_head_rows
from hls_py.packing.tables import write_tables
from hls_py.schedule.check import check_program
from hls_py.schedule.program import block_beats, compile_program
from hls_py.schedule.shape import ModelShape
from hls_py.schedule.stream_order import Codes, Gains, HeadRows, Matrix, Norm, head_records, layer_records
from rtl.contract import image_manifest as manifest
from rtl.contract.command_words import COMMAND_BYTES
from rtl.contract.design_params import CONTRACT_VERSION, DesignParams
from rtl.contract.number_formats import SEGMENT_BYTES, round_up
from rtl.contract.stream_records import Destination, record

IMAGE_FILES_AND_DESIGN = (*IMAGE_FILES, manifest.DESIGN_FILE)


def model_shape(model: Model, params: DesignParams) -> ModelShape:
    """Raises :class:`hls_py.errors.TellmeError` when the model doesn't fit the design."""
    shape = ModelShape(model.config, params, model.has_attention_sub_norm, model.has_ffn_sub_norm)
    shape.check()
    return shape


def pack(model: Model, params: DesignParams, folder: Path, progress: bool = True) -> manifest.ImageManifest:
    """Write the image of ``model`` for ``params`` to ``folder``.

    The folder appears only when it is complete; an image that is there is replaced.

    Raises :class:`hls_py.errors.TellmeError` when the model can't be read or doesn't fit.
    """
    shape = model_shape(model, params)
    made: list[manifest.ImageManifest] = []
    replace_folder(folder, lambda staging: made.append(_write(model, shape, staging, progress)), IMAGE_FILES_AND_DESIGN)
    return made[0]


def _write(model: Model, shape: ModelShape, folder: Path, progress: bool) -> manifest.ImageManifest:
    stream = StreamRecords(model, shape)
    extents = []
    with open(folder / manifest.STREAM_FILE, "wb") as file:
        for records in (stream.layers(progress), stream.head(progress)):
            first = stream.beats
            for _, raw in records:
                file.write(raw)
            extents.append(manifest.Span(first, stream.beats - first))
    with open(folder / manifest.TABLES_FILE, "wb") as file:
        write_tables(file, shape, model.embedding_rows())

    programs = programs_of(shape, stream.scales)
    (folder / manifest.PROGRAM_FILE).write_bytes(b"".join(programs))
    (folder / manifest.DESIGN_FILE).write_text(design_text(shape.params), encoding="utf-8")
    counts = [len(p) // COMMAND_BYTES for p in programs]
    c = shape.config
    result = manifest.ImageManifest(
        contract_version=CONTRACT_VERSION, design_hash=f"{shape.params.design_hash:032x}",
        content_hash=manifest.content_hash(folder), layers_extent=extents[0], head_extent=extents[1],
        program_with_head=manifest.Span(0, counts[0]), program_without_head=manifest.Span(counts[0], counts[1]),
        max_rows=shape.max_rows, vocabulary=c.vocabulary, max_positions=c.max_positions, layers=c.layers,
        kv_heads=c.kv_heads, head_dim=c.head_dim, block_beats=block_beats(shape),
        top_k=min(shape.params.top_k, c.vocabulary))
    (folder / manifest.MANIFEST_FILE).write_text(result.to_json(), encoding="utf-8")
    return result


def programs_of(shape: ModelShape, scales: Mapping[tuple[int, Matrix], float]) -> list[bytes]:
    """The programs of a pass with and without the head, checked against finite queues."""
    programs = []
    for with_head in (True, False):
        programs.append(compile_program(shape, lambda layer, matrix: scales[layer, matrix], with_head))
        check_program(shape, programs[-1], with_head)
    return programs


class StreamRecords:
    """The records of a model's weight stream, made one after the other as they are asked for.

    ``beats``: beats so far. ``scales``: weight scale of every matrix that has passed.
    """

    def __init__(self, model: Model, shape: ModelShape):
        self.model, self.shape = model, shape
        self.beats = self.sequence = 0
        self.scales: dict[tuple[int, Matrix], float] = {}
        self._arranged: tuple[int, Matrix, np.ndarray] | None = None

    def layers(self, progress: bool = False) -> Iterator[tuple[Gains | Codes, bytes]]:
        """What every pass consumes: (what it is, the record)."""
        count = self.shape.config.layers
        for index in tqdm(range(count), desc="packing layers", unit="layer", disable=not progress):
            layer = self.model.layer(index)
            # One layer ahead: its input gains lie before this layer's down codes.
            following = self.model.final_gain() if index + 1 == count else self.model.layer_input_gain(index + 1)
            for item in layer_records(self.shape, index):
                if isinstance(item, Gains):
                    gains = following if item.layer > index else getattr(layer, item.norm.value)
                    yield item, self._gains(item, gains)
                else:
                    yield item, self._codes(item, layer)

    def head(self, progress: bool = False) -> Iterator[tuple[HeadRows, bytes]]:
        """What a pass with logits consumes after the layers: twice for each chunk, scales and rows."""
        head = self.model.head_rows()
        for rows in tqdm(list(head_records(self.shape)), desc="packing head", unit="rows", disable=not progress):
            for raw in self._head_rows(rows, head):
                yield rows, raw

    def _record(self, destination: Destination, payload: bytes, flags: int = 0) -> bytes:
        raw = record(destination, payload, self.sequence, self.shape.params.beat_bytes, flags)
        self.sequence += 1
        self.beats += len(raw) // self.shape.params.beat_bytes
        return raw

    def _gains(self, item: Gains, gains: np.ndarray) -> bytes:
        norm = Norm.INPUT if item.norm is Norm.FINAL else item.norm
        return self._record(Destination.GAINS, arranged_gains(gains, norm, self.shape).astype("<f4").tobytes(),
                            item.bank)

    def _codes(self, item: Codes, layer: Layer) -> bytes:
        if self._arranged is None or self._arranged[:2] != (item.layer, item.matrix):
            self._arranged = (item.layer, item.matrix, arranged_matrix(layer, item.matrix, self.shape))
            self.scales[item.layer, item.matrix] = float(getattr(layer, item.matrix.value).scale)
        tile = item.tile
        weights = self._arranged[2][tile.first:tile.first + tile.outputs]
        return self._record(Destination.CODES, encode_tile(weights, self.shape.params, tile.steps))

    def _head_rows(self, item: HeadRows, head: Rows) -> Iterator[bytes]:
        """Scales, then rows: S vocabulary rows a group, segments of 16 dims rising."""
        segments = self.shape.params.segments
        codes, scales = quantise_head_rows(head.read(item.first, item.first + item.rows))
        padded = round_up(item.rows, segments)
        codes = pad_to(codes, (padded, self.shape.segments * SEGMENT_BYTES))
        yield self._record(Destination.HEAD_SCALES, pad_to(scales, (padded,)).astype("<f4").tobytes())
        by_beat = codes.reshape(padded // segments, segments, self.shape.segments, SEGMENT_BYTES).transpose(0, 2, 1, 3)
        yield self._record(Destination.HEAD_ROWS, by_beat.tobytes())
