"""Hugging Face transformers' own BitNet, in float32 on the CPU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from hls_py.errors import TellmeError


def transformers_logits(folder: Path, tokens: np.ndarray) -> np.ndarray:
    """float32 [sequences, n, vocabulary] of token ids [sequences, n], each sequence by itself.

    Raises :class:`TellmeError` when torch or transformers are not installed.
    """
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # its activation quantisers are decorated with torch.compile
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError:
        raise TellmeError("verify needs torch and transformers; install the extra: "
                          "pip install 'tellme[oracles]'") from None
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    # Its packed layers stay bfloat16 whatever dtype says, and PreTrainedModel.float refuses quantised models.
    model = torch.nn.Module.float(model).eval()
    with torch.no_grad():
        return np.stack([model(torch.tensor(row[None])).logits[0].numpy() for row in tokens])
