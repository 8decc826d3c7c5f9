"""Writes an image folder: the weight stream, the tables, the program and the manifest of one model on one design."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from hls_py.design_folder import IMAGE_FILES, design_text
from hls_py.golden.ternary_matmul.encoding import encode_tile
from hls_py.model_import.model import Layer, Model
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
    scales: dict[tuple[int, Matrix], float] = {}
    with open(folder / manifest.STREAM_FILE, "wb") as file:
        stream = _StreamWriter(file, shape)
        for index in tqdm(range(shape.config.layers), desc="packing layers", unit="layer", disable=not progress):
            layer = model.layer(index)
            # One layer ahead: its input gains lie before this layer's down codes.
            following = model.final_gain() if index + 1 == shape.config.layers else model.layer_input_gain(index + 1)
            for item in layer_records(shape, index):
                if isinstance(item, Gains):
                    gains = following if item.layer > index else getattr(layer, item.norm.value)
                    stream.gains(item, gains)
                else:
                    scales[index, item.matrix] = stream.codes(item, layer)
        layers_extent = manifest.Span(0, stream.beats)
        head = model.head()
        for rows in tqdm(list(head_records(shape)), desc="packing head", unit="rows", disable=not progress):
            stream.head_rows(rows, head)
        head_extent = manifest.Span(layers_extent.count, stream.beats - layers_extent.count)
    with open(folder / manifest.TABLES_FILE, "wb") as file:
        write_tables(file, shape, model.embedding())

    programs = []
    for with_head in (True, False):
        programs.append(compile_program(shape, lambda layer, matrix: scales[layer, matrix], with_head))
        check_program(shape, programs[-1], with_head)
    (folder / manifest.PROGRAM_FILE).write_bytes(b"".join(programs))
    (folder / manifest.DESIGN_FILE).write_text(design_text(shape.params), encoding="utf-8")
    counts = [len(p) // COMMAND_BYTES for p in programs]
    c = shape.config
    result = manifest.ImageManifest(
        contract_version=CONTRACT_VERSION, design_hash=f"{shape.params.design_hash:032x}",
        content_hash=manifest.content_hash(folder), layers_extent=layers_extent, head_extent=head_extent,
        program_with_head=manifest.Span(0, counts[0]), program_without_head=manifest.Span(counts[0], counts[1]),
        max_rows=shape.max_rows, vocabulary=c.vocabulary, max_positions=c.max_positions, layers=c.layers,
        kv_heads=c.kv_heads, head_dim=c.head_dim, block_beats=block_beats(shape),
        top_k=min(shape.params.top_k, c.vocabulary))
    (folder / manifest.MANIFEST_FILE).write_text(result.to_json(), encoding="utf-8")
    return result


class _StreamWriter:
    """Appends records and counts beats."""

    def __init__(self, file: BinaryIO, shape: ModelShape):
        self.file, self.shape = file, shape
        self.beats = self.sequence = 0
        self._arranged: tuple[int, Matrix, np.ndarray] | None = None

    def _append(self, destination: Destination, payload: bytes, flags: int = 0) -> None:
        raw = record(destination, payload, self.sequence, self.shape.params.beat_bytes, flags)
        self.file.write(raw)
        self.sequence += 1
        self.beats += len(raw) // self.shape.params.beat_bytes

    def gains(self, item: Gains, gains: np.ndarray) -> None:
        norm = Norm.INPUT if item.norm is Norm.FINAL else item.norm
        self._append(Destination.GAINS, arranged_gains(gains, norm, self.shape).astype("<f4").tobytes(), item.bank)

    def codes(self, item: Codes, layer: Layer) -> float:
        """Append a tile; returns the matrix's weight scale."""
        if self._arranged is None or self._arranged[:2] != (item.layer, item.matrix):
            self._arranged = (item.layer, item.matrix, arranged_matrix(layer, item.matrix, self.shape))
        tile = item.tile
        weights = self._arranged[2][tile.first:tile.first + tile.outputs]
        self._append(Destination.CODES, encode_tile(weights, self.shape.params, tile.steps))
        return float(getattr(layer, item.matrix.value).scale)

    def head_rows(self, item: HeadRows, head: np.ndarray) -> None:
        """Scales, then rows: S vocabulary rows a group, segments of 16 dims rising."""
        segments = self.shape.params.segments
        codes, scales = quantise_head_rows(head[item.first:item.first + item.rows])
        padded = round_up(item.rows, segments)
        codes = pad_to(codes, (padded, self.shape.segments * SEGMENT_BYTES))
        self._append(Destination.HEAD_SCALES, pad_to(scales, (padded,)).astype("<f4").tobytes())
        by_beat = codes.reshape(padded // segments, segments, self.shape.segments, SEGMENT_BYTES).transpose(0, 2, 1, 3)
        self._append(Destination.HEAD_ROWS, by_beat.tobytes())
