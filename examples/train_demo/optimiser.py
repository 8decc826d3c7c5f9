"""Muon for the weight matrices, AdamW for the rest, and the learning-rate schedule.

Muon (K. Jordan et al., 2024): the momentum of a matrix is replaced by a nearly orthogonal matrix with the same row and
column spaces, found by a quintic Newton-Schulz iteration, so every direction of the matrix moves at the same speed.
That suits ternary weights: an update that is large in few directions would flip few weights back and forth.
"""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # maps singular values in (0, 1] into about [0.7, 1.2] within five rounds


def orthogonalise(matrices: Tensor, rounds: int = 5) -> Tensor:
    """[n, rows, cols] with rows <= cols -> the same shape, singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16()
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.float()


class Muon(torch.optim.Optimizer):
    """Matrices of one shape, either way up, are updated as one batch: three large products instead of many small."""

    def __init__(self, parameters: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[min(parameter.shape), max(parameter.shape)].append(parameter)
            for batch in shapes.values():
                directions = []
                for parameter in batch:
                    state = self.state[parameter]
                    if not state:
                        state["momentum"] = torch.zeros_like(parameter)
                    momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                    direction = parameter.grad.lerp(momentum, group["momentum"])  # Nesterov
                    directions.append(direction if direction.shape[0] <= direction.shape[1] else direction.T)
                for parameter, update in zip(batch, orthogonalise(torch.stack(directions)), strict=True):
                    rows, columns = parameter.shape
                    update = update if rows <= columns else update.T
                    parameter.sub_(update, alpha=group["lr"] * max(1, rows / columns) ** 0.5)


def build(model: torch.nn.Module, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [Muon(matrices, matrix_lr), torch.optim.AdamW(others, other_lr, betas=(0.9, 0.98), weight_decay=0.0)]


def parse_rate(text: str) -> list[tuple[int, float]]:
    """"1200:1,6000:0" -> [(1200, 1.0), (6000, 0.0)]: corners of the learning rate, the last one ends the run."""
    points = [(int(step), float(value)) for step, _, value in (p.partition(":") for p in text.split(","))]
    if any(a[0] >= b[0] for a, b in pairwise(points)):
        raise ValueError(f"steps must rise in {text!r}")
    return points


def factor(step: int, points: list[tuple[int, float]], warmup: int) -> float:
    """Linear between the corners, constant before the first of them; over it all a linear warm-up."""
    steps, values = zip(*points, strict=True)
    return min(1.0, (step + 1) / max(1, warmup)) * float(np.interp(step, steps, values))


def set_learning_rate(optimisers: list[torch.optim.Optimizer], base: list[float], scale: float) -> None:
    for optimiser, lr in zip(optimisers, base, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = lr * scale
