"""Directions of effect on real CIFAR-10 images: a few dozen runs of one to five minutes, and a table.

    python benchmarks/small_scale.py --data-dir DATA --out runs/small-scale [--jobs 2] [--only NAME]

Cost: about 50 core-minutes. Runs that are complete in OUT are not repeated. The groups:

quick      MocoSFL, 20 clients, cut 1, 500 and 1,500 steps: better than the untrained network and raw pixels
aligned    MonAcoSFL against MocoSFL at cut 8, client gradients of their own rows, 3 paired seeds
control    the same pairs at cut 1, where alignment should make no difference
grid       both methods with 20 and 100 clients at cuts 1, 2 and 6, 200 steps
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

METHODS = ("mocosfl", "monacosfl")
SEEDS = (0, 1, 2)
SHORT = ("epochs=8", "evaluation.every=2", "evaluation.linear_probe=false")
HUNDRED = ("client.count=100", "client.batch_size=4", "federation.sync_freq=2")


def experiments() -> dict[str, list[str]]:
    runs = {f"quick-s{seed}": [f"seed={seed}"] for seed in SEEDS}
    runs["quick-long-s0"] = ["seed=0", "epochs=60", "evaluation.every=10"]
    for seed, method in itertools.product(SEEDS, METHODS):
        pair = [f"method={method}", f"seed={seed}", "client.gradient_scale=own_rows"]
        runs[f"aligned-{method}-s{seed}"] = [*pair, "model.cut_layer=8"]
        runs[f"control-{method}-s{seed}"] = [*pair, "model.cut_layer=1"]
    for clients, cut, method in itertools.product((20, 100), (1, 2, 6), METHODS):
        sizes = HUNDRED if clients == 100 else ()
        runs[f"grid-{clients}-cut{cut}-{method}"] = [
            f"method={method}",
            "seed=0",
            f"model.cut_layer={cut}",
            *SHORT,
            *sizes,
        ]
    return runs


def run(name: str, settings: list[str], out: Path, data: Path, ranks: int, threads: int) -> dict[str, object]:
    folder = out / name
    inspect = [sys.executable, "-m", "mocosfl_mpi", "inspect", "--json", str(folder)]
    if not (folder / "run.h5").exists():
        command = [sys.executable, "-m", "mocosfl_mpi", "run", "cifar10-quick", "-n", str(ranks)]
        command += ["--out", str(folder), "--data-dir", str(data), "--set", "data.allow_unofficial=true"]
        command += ["--set", f"compute.server_threads={threads}"]
        command += ["--set", "compute.precision=fp32", "--set", "compute.backend=stacked"]
        for setting in settings:
            command += ["--set", setting]
        with (out / f"{name}.log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    return dict(json.loads(subprocess.run(inspect, capture_output=True, text=True, check=True).stdout))


def table(results: dict[str, dict[str, object]]) -> str:
    columns = ("knn_top1", "knn_projector_top1", "linear_top1", "knn_top1_untrained", "linear_top1_untrained",
               "knn_top1_pixels", "linear_top1_pixels", "loss", "online_momentum_distance")  # fmt: skip
    lines = ["| run | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, result in results.items():
        cells = [f"{result[c]:.3f}" if isinstance(result[c], float) else str(result[c]) for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for group in ("aligned", "control"):
        for key in ("knn_top1", "knn_projector_top1", "linear_top1", "loss"):
            gaps = [
                float(str(results[f"{group}-monacosfl-s{s}"][key])) - float(str(results[f"{group}-mocosfl-s{s}"][key]))
                for s in SEEDS
                if f"{group}-monacosfl-s{s}" in results and f"{group}-mocosfl-s{s}" in results
            ]
            if len(gaps) > 1:
                each = ", ".join(f"{gap:+.2f}" for gap in gaps)
                lines.append(f"\n{group}, MonAcoSFL - MocoSFL, {key}: {mean(gaps):+.2f} ± {stdev(gaps):.2f} ({each})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--ranks", type=int, default=3, help="of each run (not part of its bits)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run's server (part of its bits)")
    parser.add_argument("--only", default="", help="only runs whose name starts so")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="a.b=v", help="override a setting in every run"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = {name: settings for name, settings in experiments().items() if name.startswith(options.only)}
    with ThreadPoolExecutor(options.jobs) as workers:
        jobs = {
            name: workers.submit(
                run,
                name,
                [*settings, *options.settings],
                options.out,
                options.data_dir,
                options.ranks,
                options.threads,
            )
            for name, settings in chosen.items()
        }
        results = {name: job.result() for name, job in jobs.items()}
    print(table(results))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
