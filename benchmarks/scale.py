"""What many clients cost: step, synchronisation and peak memory, each run in processes of its own.

    python benchmarks/scale.py [--ranks 3] [--data-dir DIR]

`everyone`: 1,000 clients that all take part in every step, cut 2. `few` and `many`: pools of 100 out of 1,000 and
out of 100,000 clients, cut 1, every client with 20 images. ResNet-18 of width 64 on images of 32 pixels. The last line
is one JSON object with, for each, seconds per step and per synchronisation of rank 0 and the sum over ranks of their
peak memory (MiB; what ranks share is counted by each).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import description

from mocosfl_mpi.config import parse, to_toml
from mocosfl_mpi.record.reader import open_run

CASES = {
    "everyone": {"clients": 1000, "pool": 1000, "cut": 2, "epochs": 2, "steps": 1},
    "few": {"clients": 1000, "pool": 100, "cut": 1, "epochs": 5, "steps": 3},
    "many": {"clients": 100_000, "pool": 100, "cut": 1, "epochs": 5, "steps": 3},
}
TRAINING = ("views", "client_forward", "exchange", "server", "client_backward")


def run(case: dict[str, int], ranks: int, data_dir: Path | None, settings: list[str]) -> dict[str, Any]:
    """One case: medians would hide a slow first step, so the first epoch is left out of the means instead."""
    source = {"source": "cifar10", "allow_unofficial": True} if data_dir else {"source": "embedded"}
    config = parse(
        {
            "epochs": case["epochs"],
            "steps_per_epoch": case["steps"],
            "data": source | {"train_images": 5000, "test_images": 100},
            "partition": {"kind": "overlapping"},
            "views": {"size": 32},
            "model": {"cut_layer": case["cut"]},
            "client": {
                "count": case["clients"],
                "batch_size": 1,
                "sampling_ratio": case["pool"] / case["clients"],
            },
            "federation": {"sync_freq": case["steps"]},
            "evaluation": {"every": 0, "linear_probe": False, "neighbours": 5},
        },
        "benchmark",
    )
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "config.toml", Path(folder) / "run"
        file.write_text(to_toml(config))
        command = [
            sys.executable,
            "-m",
            "mocosfl_mpi",
            "run",
            str(file),
            "-n",
            str(ranks),
            "--out",
            str(out),
            "--quiet",
        ]
        command += ["--data-dir", str(data_dir)] if data_dir else []
        subprocess.run([*command, *(word for setting in settings for word in ("--set", setting))], check=True)
        with open_run(out) as found:
            phases = list(found["phase"])
            seconds = found["measured/seconds"][1:, 0]
            steps = case["steps"] * (case["epochs"] - 1)
            return {
                "seconds_per_step": float(seconds[:, [phases.index(name) for name in TRAINING]].sum() / steps),
                "seconds_per_synchronisation": float(seconds[:, phases.index("synchronise")].sum() / steps),
                "seconds_between": float(seconds[:, phases.index("record")].sum() / (case["epochs"] - 1)),
                "peak_mib": float(found["measured/resident_bytes"][-1].sum() / 2**20),
                "peak_mib_of_ranks": [round(float(peak) / 2**20) for peak in found["measured/resident_bytes"][-1]],
                "precision": found.attrs["config"]["compute"]["precision"],
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="a.b=v", help="override a setting in every run"
    )
    options = parser.parse_args()
    results = {}
    for name, case in CASES.items():
        if options.only in (None, name):
            results[name] = run(case, options.ranks, options.data_dir, options.settings)
            print(name, results[name], flush=True)
    print(json.dumps({"ranks": options.ranks, **results, "machine": description()}))


if __name__ == "__main__":
    main()
