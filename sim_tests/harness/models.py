"""Small random models in Hugging Face form, for tests: any dimensions, realistic outliers."""

from __future__ import annotations

from dataclasses import dataclass

from hls_py.random_model import RandomModel


@dataclass(frozen=True)
class TinyModel(RandomModel):
    """A random model as small as the smallest design; every dimension may be given."""

    hidden: int = 64
    ffn: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    vocabulary: int = 67
    max_positions: int = 512
