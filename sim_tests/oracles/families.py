"""Random models in the shapes of the families that people bring, in golden and in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hls_py.golden.machine.precision import Precision
from hls_py.model_import.config import ModelConfig
from hls_py.model_import.model import Model
from hls_py.oracles.transformers_model import TransformersModel
from hls_py.packing.image import pack
from host.accelerator import Accelerator
from host.devices.golden import GoldenDevice
from host.sequences import SequencePool, logits_of
from rtl.contract.design_params import DesignParams
from rtl.contract.number_formats import round_up
from rtl.contract.pass_descriptor import RowFlag
from sim_tests.harness.checkpoints import Family, Synthetic
from sim_tests.harness.machines import small_design


class PeakedHead(Synthetic):
    """An untied head that prefers one token a row, as a trained one does.

    Rows drawn by themselves would leave the two best logits of 16,384 a fifth of a deviation apart, where any rounding
    decides; here a row looks for the token before its own.
    """

    def head(self) -> np.ndarray:
        embedding = self.embedding().astype(np.float32)
        noise = super().head().astype(np.float32)
        return (np.float32(0.1) * np.roll(embedding, 1, axis=0) + noise).astype(self.embedding().dtype)


def real_dimensions(family: Family) -> Family:
    """Two layers of the real widths; 16,384 rows of the vocabulary."""
    return replace(family, layers=2, vocabulary=min(family.vocabulary, 16384), max_positions=256)


@contextmanager
def noisy_attention(oracle: TransformersModel, deviations: float) -> Iterator[None]:
    """Gaussian noise of so many deviations of its row on every attention output: what rounding flips make of it."""
    torch = oracle.torch
    generator = torch.Generator().manual_seed(1)

    def moved(_: Any, inputs: Any) -> Any:
        rows = inputs[0]
        noise = torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
        return (rows + deviations * rows.std(-1, keepdim=True) * noise,)

    readers = [getattr(layer.self_attn, "attn_sub_norm", layer.self_attn.o_proj) for layer in oracle.model.model.layers]
    hooks = [reader.register_forward_pre_hook(moved) for reader in readers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def design_for(config: ModelConfig) -> DesignParams:
    """A design that holds the model; golden's logits don't depend on which."""
    head = round_up(config.head_dim, 16)
    return small_design(
        rows=8, tables=20, outputs=5, row_vectors=8, ports=2, port_bytes=32, rows_per_builder=4,
        max_hidden=round_up(config.hidden_size, 16), max_heads=max(16, config.heads),
        max_inner=round_up(max(config.intermediate_size, config.heads * head), 16),
        max_kv_width=config.kv_heads * head, max_head_dim=head, max_row_vectors=8 * config.queries_per_kv)


class GoldenModel:
    """A checkpoint, packed, on golden."""

    def __init__(self, model: Path, folder: Path, memory_bytes: int = 4 << 30):
        self.model = Model(model)
        self.params, self.folder, self.memory_bytes = design_for(self.model.config), folder, memory_bytes
        pack(self.model, self.params, folder, progress=False)

    def logits(self, tokens: np.ndarray, precision: Precision | None = None) -> np.ndarray:
        """float32 [sequences, n, vocabulary], each sequence by itself."""
        machine = Accelerator(GoldenDevice(self.params, self.memory_bytes, precision=precision), self.folder)
        pool = SequencePool(machine)
        sequence = pool.open()
        out = []
        for ids in tokens.tolist():
            out.append(logits_of(pool.feed(sequence, ids, every=RowFlag.LOGITS)))
            pool.rewind(sequence, 0)
        return np.stack(out)
