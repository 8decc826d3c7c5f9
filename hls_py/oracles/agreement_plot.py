"""A figure of how far golden and an oracle agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hls_py.golden.machine.recorder import BLOCKS
from hls_py.oracles.agreement import BlockError


def draw(path: Path, title: str, ours: np.ndarray, theirs: np.ndarray, errors: list[BlockError], oracle: str) -> None:
    """``ours``, ``theirs``: nats of each next token, golden's and the oracle's. Left: one against the other; right:
    errors of blocks by layer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2 if errors else 1, figsize=(11 if errors else 5.5, 4.5), squeeze=False)
    left = axes[0][0]
    top = float(max(ours.max(), theirs.max()))
    left.plot([0, top], [0, top], color="0.7", linewidth=1)
    left.plot(theirs.reshape(-1), ours.reshape(-1), ".", markersize=2)
    left.set_xlabel(f"{oracle}: nats of the next token")
    left.set_ylabel("golden: nats of the next token")
    left.set_title(title)
    if errors:
        right = axes[0][1]
        for block in BLOCKS:
            points = [(error.layer, 100 * error.mean) for error in errors if error.block == block]
            if points:
                right.plot(*zip(*points), marker=".", label=block.replace("_", " "))
        right.set_xlabel("layer")
        right.locator_params(axis="x", integer=True)
        right.set_ylabel("mean error, % of the deviation")
        right.set_ylim(bottom=0)
        right.legend(fontsize=8)
        right.set_title("blocks, golden free-running")
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
