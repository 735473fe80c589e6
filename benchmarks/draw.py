"""Draw the kept results of `step.py`: seconds per step and phase, ours and the published structure's.

python benchmarks/draw.py benchmarks/results/steps.jsonl benchmarks/results/steps.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

PHASES = {
    "views": ("augmentation", "#e69f00"),
    "client_forward": ("client forward", "#56b4e9"),
    "server": ("server", "#0072b2"),
    "client_backward": ("client backward", "#009e73"),
    "garbage": ("garbage collection", "#999999"),
}


def main() -> None:
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()][::-1]  # the first on top
    figure, axes = plt.subplots(figsize=(6, 0.55 * len(rows) + 1.2), layout="constrained")
    labels = []
    for place, row in enumerate(rows):
        for offset, name, shade in ((0.2, "phases_published_structure", 0.45), (-0.2, "phases", 1.0)):
            left = 0.0
            for phase, (title, colour) in PHASES.items():
                seconds = row[name].get(phase, 0.0)
                label = title if place == 0 and ((name == "phases") != (phase == "garbage")) else None
                axes.barh(place + offset, seconds, 0.36, left, color=colour, alpha=shade, label=label)
                left += seconds
            if name == "phases":
                axes.text(left + 0.05, place + offset, f"{row['ratio']:.1f} ×", va="center", fontsize=8)
        labels.append(f"cut {row['cut']}, {row['precision']}")
    axes.set_yticks(range(len(rows)), labels)
    axes.set_xlabel("seconds per step (pale: published structure, fp32)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=3)
    figure.savefig(sys.argv[2], dpi=200)


if __name__ == "__main__":
    main()
