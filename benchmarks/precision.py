"""Does bf16 learn as well as fp32? The same runs in both, over seeds: kNN over steps, and a picture of the curves.

    python benchmarks/precision.py --data-dir DIR --out OUT [--steps 2000] [--seeds 3] [--jobs 2]

Preset `cifar10-quick` (20 clients with two label shards each) on 3 ranks. Runs complete in OUT are not repeated. The
last line is one JSON object: `gap` is the difference of mean final kNN, bf16 - fp32, in points.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from mocosfl_mpi.record.reader import open_run

STEPS_PER_EPOCH = 25
PRECISIONS = ("fp32", "bf16")


def run(precision: str, seed: int, steps: int, options: argparse.Namespace) -> dict[str, object]:
    out = options.out / f"{precision}-s{seed}-{steps}"
    if not (out / "run.h5").exists():
        settings = {
            "seed": seed,
            "epochs": steps // STEPS_PER_EPOCH,
            "data.allow_unofficial": "true",
            "compute.precision": precision,
            "compute.server_threads": 1,
            "evaluation.every": max(1, steps // STEPS_PER_EPOCH // 8),
        }
        command = [sys.executable, "-m", "mocosfl_mpi", "run", "cifar10-quick", "-n", "3", "--out", str(out), "--quiet"]
        command += ["--data-dir", str(options.data_dir)]
        command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        command += [word for setting in options.settings for word in ("--set", setting)]
        subprocess.run(command, check=True)
    with open_run(out) as found:
        return {
            "steps": [int(step) for step in found["evaluations/step"]],
            "knn": [float(value) for value in found["evaluations/knn_top1"]],
            "loss": float(found["epochs/loss"][-1]),
            "final": found.summary()["knn_top1"],
            "linear": found.summary()["linear_top1"],
            "wall_seconds": found.summary()["wall_seconds"],
        }


def draw(results: dict[str, list[dict[str, object]]], path: Path) -> None:
    """Curves of all seeds, thin, and their means, thick."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for (precision, runs), colour, dash in zip(results.items(), ("#0072b2", "#d55e00"), ("-", "--"), strict=True):
        steps = runs[0]["steps"]
        for one in runs:
            axes.plot(steps, one["knn"], dash, color=colour, linewidth=0.6, alpha=0.6)
        means = [mean(values) for values in zip(*(one["knn"] for one in runs), strict=True)]  # type: ignore[misc]
        axes.plot(steps, means, dash, color=colour, linewidth=2, label=f"{precision}, mean of {len(runs)} seeds")
    axes.set_xlabel("training steps")
    axes.set_ylabel("kNN accuracy (%)")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="a.b=v", help="override a setting in every run"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as workers:
        jobs = {
            precision: [workers.submit(run, precision, seed, options.steps, options) for seed in range(options.seeds)]
            for precision in PRECISIONS
        }
        results = {precision: [job.result() for job in mine] for precision, mine in jobs.items()}
    draw(results, options.out / "precision.png")
    print("| precision | kNN (seeds) | mean ± std | linear | wall (s) |\n|---|---|---|---|---|")
    for precision, runs in results.items():
        final, linear = ([float(str(one[name])) for one in runs] for name in ("final", "linear"))
        each = ", ".join(f"{value:.1f}" for value in final)
        wall = mean(float(str(one["wall_seconds"])) for one in runs)
        print(
            f"| {precision} | {each} | {mean(final):.2f} ± {stdev(final):.2f} "
            f"| {mean(linear):.2f} ± {stdev(linear):.2f} | {wall:.0f} |"
        )
    gap = mean(float(str(one["final"])) for one in results["bf16"]) - mean(
        float(str(one["final"])) for one in results["fp32"]
    )
    print(json.dumps({"gap": gap, **results}))


if __name__ == "__main__":
    main()
