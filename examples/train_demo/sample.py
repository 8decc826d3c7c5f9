"""Sample text and count its words: `python -m examples.train_demo.sample MODEL [--tokens 2000]`.

Several continuations of held-out openings are drawn at one temperature from the whole distribution (no top-k, no
top-p). Reported is the share of their words that stand in the training text; a word cut by the end is not counted.
"""

import argparse
import json
import re
from pathlib import Path

import torch
from tokenizers import Tokenizer

from examples.train_demo import corpus
from examples.train_demo.export import load
from examples.train_demo.model import DemoModel


def opening(block: str, characters: int = 60) -> str:
    """The beginning of a paragraph in the middle of the block, cut behind a word."""
    start = block.index("\n\n", len(block) // 2)
    piece = block[start:].lstrip("\n")[:characters]
    return piece[: piece.rfind(" ")]


@torch.no_grad()
def continue_text(model: DemoModel, prompt: list[int], count: int, temperature: float,
                  generator: torch.Generator) -> list[int]:
    caches: list[list] = [[] for _ in model.layers]
    logits = model(torch.tensor([prompt]), caches)[0, -1]
    drawn: list[int] = []
    while True:
        token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
        drawn.append(token)
        if len(drawn) == count:
            return drawn
        logits = model(torch.tensor([[token]]), caches)[0, -1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=2000, help="in all")
    parser.add_argument("--parts", type=int, default=4, help="continuations, each with its own opening")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="the figures only")
    args = parser.parse_args()
    model = load(args.model).eval()
    model.dtype = torch.float32
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    training, held_out = corpus.split()
    known = set(corpus.words("\n\n".join(training)))
    generator = torch.Generator().manual_seed(args.seed)
    found, unknown = 0, []
    for part in range(args.parts):
        prompt = opening(held_out[part * len(held_out) // args.parts])
        ids = tokenizer.encode(prompt).ids
        drawn = continue_text(model, ids, args.tokens // args.parts, args.temperature, generator)
        continuation = tokenizer.decode(drawn)
        if not args.quiet:
            print(f"{prompt}|{continuation}\n{'-' * 60}")
        # an opening ends behind a word; the last word may have been cut
        for word in corpus.words(re.sub(r"\S+$", "", continuation)):
            found += word in known
            if word not in known:
                unknown.append(word)
    print(json.dumps({"words": found + len(unknown), "share_in_training_text": round(found / (found + len(unknown)), 4),
                      "unknown": unknown[:40]}))


if __name__ == "__main__":
    main()
