"""The server begins with the first clients' smashed data, or when all are there: both taking turns on the same cores.

    python benchmarks/pipeline.py [--cut 3] [--precision bf16] [--ranks 2] [--repeats 5] [--data-dir DIR]

The step of `benchmarks/step.py`, in `mocosfl run` with a thread for each rank: where there are as many cores as ranks,
nobody takes another's. The last line is one JSON object: `ratio` (`compute.pipeline = off` over `on`, median of the
pairs), the seconds per step of both (medians), and what rank 0 waited for hosts in each (`waiting`, seconds per step).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

from machine import description
from step import configuration, run_seconds

SHAPE = {"clients": 1000, "pool": 100, "batch": 1, "width": 64, "symmetric": "published", "device": "cpu", "threads": 1}
WAYS = ("off", "on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", type=int, default=3)
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--backend", choices=("auto", "fused", "stacked", "loop"), default="auto")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data-dir", type=Path)
    for name, value in SHAPE.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.set_defaults(compile=False, block=None)  # what else `configuration` asks for
    options = parser.parse_args()
    steps: dict[str, list[float]] = {way: [] for way in WAYS}
    waited: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(options.repeats):
            for way in WAYS:
                config = configuration(options, 1, epochs=3, steps_per_epoch=4)
                compute = config.compute.model_copy(update={"pipeline": way})
                config = config.model_copy(update={"compute": compute})
                phases = run_seconds(options, config, options.ranks, Path(folder) / f"{way}-{repeat}")
                steps[way] += [sum(phase.values()) for phase in phases]
                waited[way] += [phase["exchange"] for phase in phases]
    ratios = [off / on for off, on in zip(*(steps[way] for way in WAYS), strict=True)]
    found = {
        "cut": options.cut,
        "ranks": options.ranks,
        "ratio": median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        **{f"seconds_{way}": median(steps[way]) for way in WAYS},
        **{f"waiting_{way}": median(waited[way]) for way in WAYS},
    }
    for way in WAYS:
        print(
            "pipeline {:<4}{:>8.4f} s a step, of which rank 0 waits {:.4f} s".format(
                way, found[f"seconds_{way}"], found[f"waiting_{way}"]
            )
        )
    print(json.dumps(found | {"machine": description()}))


if __name__ == "__main__":
    main()
