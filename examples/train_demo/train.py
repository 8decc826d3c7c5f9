"""Train the demo model: `python -m examples.train_demo.train RUN [--initial MODEL] [--rate 2430:1,8102:0] ...`.

RUN is a folder: `checkpoint.pt` is replaced atomically, and a run continues from it; `log.jsonl` gains a line at each.
A batch is a function of seed and step alone, so an interrupted run sees the same batches as an uninterrupted one.
Corners of the rate that still lie ahead may be moved when a run continues.
"""

import argparse
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from examples.train_demo import checkpoint, corpus, evaluate, optimiser
from examples.train_demo.model import DemoModel, Shape
from examples.train_demo.tokenizer import encode

SHIPPED_TOKENIZER = Path(__file__).parent.parent / "demo_model" / "tokenizer.json"


class Batches:
    """Windows of the training text. Short ones visit every part once an epoch, at a new phase and order in each."""

    def __init__(self, tokens: np.ndarray, seed: int, batch: int, length: int, long_length: int, long_every: int):
        self.tokens, self.seed, self.batch, self.length = tokens, seed, batch, length
        self.long_length, self.long_every = long_length, long_every
        self.windows = len(tokens) // length - 2
        self.order: tuple[int, np.ndarray] | None = None

    def _start(self, index: int) -> int:
        epoch, place = divmod(index, self.windows)
        if self.order is None or self.order[0] != epoch:
            generator = np.random.default_rng([self.seed, 1, epoch])
            phase = int(generator.integers(self.length))
            self.order = epoch, generator.permutation(self.windows) * self.length + phase
        return int(self.order[1][place])

    def __getitem__(self, step: int) -> torch.Tensor:
        """Token ids [batch, length + 1], or fewer and longer rows of as many tokens in every `long_every`-th step."""
        if self.long_every and step % self.long_every == self.long_every - 1:
            length = self.long_length
            count = max(1, self.batch * self.length // length)
            generator = np.random.default_rng([self.seed, 2, step])
            starts = [int(s) for s in generator.integers(len(self.tokens) - length, size=count)]
        else:
            length = self.length
            starts = [self._start(step * self.batch + i) for i in range(self.batch)]
        return torch.from_numpy(np.stack([self.tokens[s : s + length + 1] for s in starts]).astype(np.int64))


class Gradients:
    """Loss and gradients of a batch, part by part: each thread takes the next part and works on it alone.

    Threads meet once a step rather than in every operator, which matters where other work competes for the cores. The
    parts are summed in their order, so the result doesn't depend on the number of threads.
    """

    def __init__(self, model: DemoModel, threads: int, compiled: bool) -> None:
        self.parameters = list(model.parameters())
        self.loss = torch.compile(model.loss, dynamic=False) if compiled else model.loss
        self.seen: set[torch.Size] = set()
        torch.set_num_threads(1)
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def _part(self, ids: torch.Tensor) -> tuple[float, tuple[torch.Tensor, ...]]:
        loss = self.loss(ids)
        return loss.item(), torch.autograd.grad(loss, self.parameters)

    def __call__(self, batch: torch.Tensor, parts: int) -> float:
        """Set every parameter's gradient; return the mean loss."""
        pieces = batch.chunk(parts)
        if pieces[0].shape not in self.seen:  # a compiler runs once, not in several threads
            self._part(pieces[0])
            self.seen.add(pieces[0].shape)
        results = list(self.pool.map(self._part, pieces))
        for parameter, *gradients in zip(self.parameters, *(g for _, g in results), strict=True):
            parameter.grad = torch.stack(gradients).sum(0).div_(len(pieces))
        return sum(loss for loss, _ in results) / len(pieces)


def save(path: Path, state: dict) -> None:
    """Replace `path` as a whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--initial", type=Path, help="begin with the masters in this folder (Hugging Face form)")
    parser.add_argument("--tokenizer", type=Path, default=SHIPPED_TOKENIZER)
    parser.add_argument("--rate", default="2430:1,8102:0", metavar="STEP:FACTOR,...",
                        help="corners of the learning rate's factor; the last one ends the run")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--long-length", type=int, default=1024)
    parser.add_argument("--long-every", type=int, default=0, help="every n-th step takes long rows (0: never)")
    parser.add_argument("--matrix-lr", type=float, default=5e-3, help="Muon")
    parser.add_argument("--other-lr", type=float, default=3e-3, help="AdamW")
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", type=int, default=4, help="a batch is computed in this many equal parts")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="fuse the element-wise work (needs a C++ compiler)")
    parser.add_argument("--save-seconds", type=float, default=120)
    parser.add_argument("--evaluate-every", type=int, default=1000)
    return parser.parse_args()


def main() -> None:
    args = parse()
    rate = optimiser.parse_rate(args.rate)
    steps = rate[-1][0]
    torch.manual_seed(args.seed)
    args.run.mkdir(parents=True, exist_ok=True)
    tokenizer_copy = args.run / "tokenizer.json"
    if not tokenizer_copy.exists():
        shutil.copyfile(args.tokenizer, tokenizer_copy)
    tokenizer = Tokenizer.from_file(str(tokenizer_copy))
    held_out = evaluate.HeldOut.load(tokenizer)
    batches = Batches(encode(tokenizer, corpus.split()[0]), args.seed, args.batch, args.length,
                      args.long_length, args.long_every)

    if args.initial:
        model = checkpoint.read(args.initial)
    else:
        model = DemoModel(Shape(vocab_size=tokenizer.get_vocab_size()))
    model.to(args.device)
    optimisers = optimiser.build(model, args.matrix_lr, args.other_lr)
    newest = args.run / "checkpoint.pt"
    step = 0
    if newest.exists():
        state = torch.load(newest, map_location=args.device, weights_only=False)
        model.load_state_dict(state["model"])
        for one, saved in zip(optimisers, state["optimisers"], strict=True):
            one.load_state_dict(saved)
        torch.set_rng_state(state["random"].cpu())
        step = state["step"]
    gradients = Gradients(model, args.threads, args.compile)

    def keep(**extra: float) -> None:
        save(newest, {"step": step, "shape": model.shape.as_dict(), "model": model.state_dict(),
                      "optimisers": [one.state_dict() for one in optimisers], "random": torch.get_rng_state()})
        with (args.run / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, "time": round(time.time()), **extra}) + "\n")

    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    (args.run / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    saved_at, average = time.monotonic(), None
    bar = tqdm(total=steps, initial=step, unit="step", smoothing=0.05, mininterval=5)
    while step < steps:
        scale = optimiser.factor(step, rate, args.warmup)
        optimiser.set_learning_rate(optimisers, [args.matrix_lr, args.other_lr], scale)
        value = gradients(batches[step].to(args.device), args.parts)
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        for one in optimisers:
            one.step()
        if not np.isfinite(value):
            raise FloatingPointError(f"loss {value} in step {step}")
        average = value if average is None else 0.99 * average + 0.01 * value
        step += 1
        bar.update()
        bar.set_postfix(loss=f"{average:.4f}", rate=f"{scale:.3f}", refresh=False)
        if step == steps or step % args.evaluate_every == 0:
            nats = evaluate.nats_per_token(model, held_out.tokens, args.length)
            keep(training=average, held_out=nats, bits_per_byte=held_out.bits_per_byte(nats))
            tqdm.write(f"step {step}: held out {nats:.4f} nats a token, {held_out.bits_per_byte(nats):.4f} bits a byte")
            saved_at = time.monotonic()
        elif time.monotonic() - saved_at > args.save_seconds:
            keep(training=average)
            saved_at = time.monotonic()
    bar.close()


if __name__ == "__main__":
    main()
