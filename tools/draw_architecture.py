#!/usr/bin/env python3
"""Draws docs/architecture.png: blocks, streams and memory of the accelerator."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

TARGET = Path(__file__).resolve().parents[1] / "docs" / "architecture.png"
DATA, CONTROL, MEMORY, EDGE = "#dbe9f6", "#f3e6d0", "#e4e4e4", "#333333"

BOXES = {  # name: (x, y, width, height, colour, text)
    "memory": (0.2, 0.2, 15.6, 0.9, MEMORY,
               "DDR: weight stream · KV cache blocks · embedding, rotary rows · program, pass "
                                            "descriptors, results"),
    "ports": (0.2, 1.6, 15.6, 0.8, MEMORY,
              "AXI4 ports: bursts, reserved space before every read, priorities KV > tables > "
                                           "control > weights"),
    "weights": (0.2, 3.0, 3.2, 1.3, DATA, "WeightStream\nrings, records, CRC"),
    "engine": (0.2, 5.3, 3.2, 2.3, DATA,
               "TernaryMatmul\nactivation buffers\ntable builders\nP lanes, accumulators\ndrain ring"),
    "vector": (4.6, 5.3, 3.4, 2.3, DATA,
               "VectorUnit\ngather · drain · statistics\nquantise by K slices\nkernels: one Python "
                                         "function,\ngolden and pipeline"),
    "attention": (9.2, 5.3, 3.2, 2.3, DATA, "Attention\nnewest K/V, tile walker\nonline softmax, merge\nKV writer"),
    "dots": (9.2, 3.0, 3.2, 1.3, DATA, "DotEngine (int8)\nA row-vectors × S segments"),
    "head": (13.2, 5.3, 2.6, 2.3, DATA, "Head\nlogits\nargmax, top-k"),
    "control": (4.6, 8.5, 7.8, 1.1, CONTROL,
                "Control\nregisters · pass loader · sequencer · unit queues and semaphores · watchdog"),
    "host": (13.2, 8.5, 2.6, 1.1, CONTROL, "host (AXI4-Lite)"),
}
ARROWS = [  # (from point, to point, label, label offset)
    ((1.8, 2.4), (1.8, 3.0), "", (0, 0)), ((1.8, 4.3), (1.8, 5.3), "codes", (0.45, 0)),
    ((3.4, 3.6), (5.2, 5.3), "gains", (0.1, -0.15)), ((3.4, 3.2), (13.6, 5.3), "head rows", (-1.1, -0.75)),
    ((3.4, 6.9), (4.6, 6.9), "sums", (0, 0.18)), ((4.6, 5.9), (3.4, 5.9), "int8 slices", (0, 0.18)),
    ((8.0, 6.9), (9.2, 6.9), "q, k, v", (0, 0.18)), ((9.2, 5.9), (8.0, 5.9), "output", (0, 0.18)),
    ((10.3, 5.3), (10.3, 4.3), "beats", (-0.45, 0)), ((11.3, 4.3), (11.3, 5.3), "dots", (0.4, 0)),
    ((12.4, 3.7), (14.0, 5.3), "dots", (0.25, -0.2)), ((6.6, 2.4), (6.6, 5.3), "embedding, rotary", (0.95, -0.9)),
    ((8.6, 2.4), (9.3, 5.3), "KV", (-0.25, -0.6)), ((15.2, 5.3), (15.2, 2.4), "results", (-0.45, -0.3)),
    ((5.8, 8.5), (3.0, 7.6), "", (0, 0)), ((6.3, 8.5), (6.3, 7.6), "commands", (0.6, 0)), ((10.6, 8.5), (10.6, 7.6),
        "", (0, 0)),
    ((12.0, 8.5), (13.8, 7.6), "", (0, 0)), ((13.2, 9.05), (12.4, 9.05), "", (0, 0)),
]


def main() -> None:
    figure, axes = plt.subplots(figsize=(13, 8))
    for x, y, width, height, colour, text in BOXES.values():
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.12",
                                      facecolor=colour,
                                      edgecolor=EDGE, linewidth=1.1, zorder=2))
        title, _, rest = text.partition("\n")
        offset = 0.14 * len(rest.split("\n")) if rest else 0
        axes.text(x + width / 2, y + height / 2 + offset, title, ha="center", va="center", fontsize=10, zorder=3,
                  fontweight="bold" if rest else "normal")
        if rest:
            axes.text(x + width / 2, y + height / 2 - 0.16, rest, ha="center", va="center", fontsize=8.5, zorder=3)
    for start, end, label, (dx, dy) in ARROWS:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color="#555555", linewidth=1.2,
                                       zorder=1))
        if label:
            axes.text((start[0] + end[0]) / 2 + dx, (start[1] + end[1]) / 2 + dy, label, ha="center", va="center",
                      fontsize=8, color="#222222", zorder=4)
    axes.set_xlim(0, 16)
    axes.set_ylim(0, 9.8)
    axes.axis("off")
    figure.savefig(TARGET, dpi=110, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
