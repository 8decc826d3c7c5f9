"""Held-out loss: `python -m examples.train_demo.evaluate MODEL [--length 256] [--float32]`.

The held-out blocks are encoded one by one and joined; the stream is cut into windows of `length` predictions, each
predicted from what precedes it in its window. Reported: nats a token and bits a byte.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from examples.train_demo import corpus
from examples.train_demo.model import DemoModel
from examples.train_demo.tokenizer import encode


@dataclass(frozen=True)
class HeldOut:
    tokens: np.ndarray
    size_bytes: int

    @classmethod
    def load(cls, tokenizer: Tokenizer) -> "HeldOut":
        blocks = corpus.split()[1]
        return cls(encode(tokenizer, blocks), sum(len(b.encode()) for b in blocks))

    def bits_per_byte(self, nats_per_token: float) -> float:
        return nats_per_token * len(self.tokens) / self.size_bytes / math.log(2)


@torch.no_grad()
def nats_per_token(model: DemoModel, tokens: np.ndarray, length: int = 256, batch_tokens: int = 8192) -> float:
    count = (len(tokens) - 1) // length
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[: count * length : length].astype(np.int64)
    batch = max(1, batch_tokens // length)
    device = next(model.parameters()).device
    total = 0.0
    for start in range(0, count, batch):
        ids = torch.from_numpy(windows[start : start + batch]).to(device)
        total += model.loss(ids).item() * len(ids)
    return total / count


def main() -> None:
    from examples.train_demo.export import load

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--length", type=int, default=256, help="predictions in a window")
    parser.add_argument("--float32", action="store_true", help="matrix products in float32: integer codes stay exact")
    args = parser.parse_args()
    model = load(args.model).eval()
    model.dtype = torch.float32 if args.float32 else torch.bfloat16
    held_out = HeldOut.load(Tokenizer.from_file(str(args.model / "tokenizer.json")))
    loss = nats_per_token(model, held_out.tokens, args.length)
    print(json.dumps({"nats_per_token": round(loss, 4), "bits_per_byte": round(held_out.bits_per_byte(loss), 4),
                      "length": args.length, "tokens": len(held_out.tokens), "bytes": held_out.size_bytes}))


if __name__ == "__main__":
    main()
