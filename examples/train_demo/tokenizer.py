"""Train the byte-level BPE tokenizer: `python -m examples.train_demo.tokenizer OUT.json [--vocabulary 1024]`.

Only the training blocks are read. The shipped model keeps the tokenizer it came with
(`examples/demo_model/tokenizer.json`), because losses in nats a token compare only under one tokenizer.
"""

import argparse
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from examples.train_demo import corpus


def train(blocks: list[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<s>", "</s>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(blocks, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, blocks: list[str]) -> np.ndarray:
    """Token ids of all blocks, one after the other, as uint16."""
    return np.concatenate([np.array(e.ids, np.uint16) for e in tokenizer.encode_batch(blocks)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocabulary", type=int, default=1024)
    args = parser.parse_args()
    training, held_out = corpus.split()
    tokenizer = train(training, args.vocabulary)
    tokenizer.save(str(args.out))
    tokens, size = len(encode(tokenizer, held_out)), len("".join(held_out).encode())
    print(f"{tokenizer.get_vocab_size()} tokens; {size / tokens:.3f} bytes a token on the held-out text")


if __name__ == "__main__":
    main()
