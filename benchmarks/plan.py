"""The plan against what a run then takes, on configurations that it was not calibrated on.

    python benchmarks/plan.py [--data-dir DIR] [--only NAME] [--profile FILE] [--repeats 1]

For each case `mocosfl plan`, then the run itself: peak memory of every rank and of their sum, seconds per step, the
simulated bytes and FLOPs (which must agree exactly) and the size of the file. With --profile the plan reads FILE
instead of measuring. The last line is one JSON object.
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

from mocosfl_mpi.plan.compare import actual
from mocosfl_mpi.record.reader import open_run

CIFAR = ["--set", "data.allow_unofficial=true"]
CASES: dict[str, tuple[list[str], bool]] = {
    "quickstart": (["quickstart", "-n", "3", "--set", "epochs=4"], False),
    "smoke of 100 clients": (
        ["smoke", "-n", "2", "--set", "client.count=100", "--set", "data.train_images=400", "--set", "epochs=4"],
        False,
    ),
    "quickstart alone, cut 3": (
        ["quickstart", "-n", "1", "--set", "epochs=3", "--set", "model.cut_layer=3", "--set", "model.width=16"],
        False,
    ),
    "guarded": (
        [
            *("quickstart", "-n", "2", "--set", "epochs=2", "--set", "model.width=32", "--set", "compute.block_size=5"),
            *("--set", "defence.clip=50", "--set", "defence.noise=gaussian", "--set", "defence.noise_scale=0.1"),
            *("--set", "defence.keep_share=0.3", "--set", "defence.levels=16"),
        ],
        False,
    ),
    "NoPeek": (["quickstart", "-n", "2", "--set", "epochs=2", "--set", "defence.nopeek=0.1"], False),
    "resistance": (
        [
            *("quickstart", "-n", "2", "--set", "epochs=2", "--set", "defence.resistance=0.1"),
            *("--set", "defence.resistance_decoder=conv_normN2C16"),
        ],
        False,
    ),
    "cifar10-quick, cut 3, width 32": (
        [
            *("cifar10-quick", "-n", "3", "--set", "epochs=3", "--set", "model.cut_layer=3"),
            *("--set", "model.width=32", "--set", "steps_per_epoch=8", *CIFAR),
        ],
        True,
    ),
    "published structure, 1,000 clients": (
        [
            *("cifar10-1000clients-cut1", "-n", "3", "--set", "epochs=3", "--set", "steps_per_epoch=4"),
            *("--set", "data.train_images=5000", "--set", "data.test_images=500", *CIFAR),
            *("--set", "evaluation.linear_probe=false"),
        ],
        True,
    ),
}
"""Arguments, and whether CIFAR-10 is needed."""


def compare(arguments: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """One case: planned and actual figures."""
    folder_of_data = ["--data-dir", str(options.data_dir)] if options.data_dir else []
    profile = ["--profile", str(options.profile)] if options.profile else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mocosfl_mpi"]
        done = subprocess.run(
            [*command, "plan", *arguments, *folder_of_data, *profile, "--json"],
            check=True,
            capture_output=True,
            text=True,
        )
        planned = json.loads(done.stdout)
        out = Path(folder) / "run"
        subprocess.run([*command, "run", *arguments, *folder_of_data, "--quiet", "--out", str(out)], check=True)
        with open_run(out) as run:
            found = actual(run)
    return {
        "resident_sum": [planned["resident_bytes_sum"], found["resident_bytes_sum"]],
        "resident": [planned["resident_bytes"], found["resident_bytes"]],
        "seconds_per_step": [planned["seconds_per_step"], found["seconds_per_step"]],
        "bytes_equal": planned["simulated_bytes"] == found["simulated_bytes"],
        "flops_equal": planned["client_flops"] == found["client_flops"],
        "record": [planned["record_bytes"], found["record_bytes"]],
    }


def ratio(pair: list[float]) -> float:
    """Planned over actual."""
    return pair[0] / pair[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where CIFAR-10 lies; without it its cases are left out")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="a.b=v", help="override a setting in every run"
    )
    options = parser.parse_args()
    results: dict[str, Any] = {}
    print(f"{'planned / actual':<36}{'memory':>8}{'by rank':>20}{'step':>18}{'':>8}{'exact':>8}{'file':>8}")
    for name, (arguments, needs_data) in CASES.items():
        if options.only not in (None, name) or (needs_data and not options.data_dir):
            continue
        settings = [word for setting in options.settings for word in ("--set", setting)]
        case = results[name] = compare([*arguments, *settings], options)
        ranks = " ".join(f"{ratio(list(pair)):.2f}" for pair in zip(*case["resident"], strict=True))
        planned, taken = case["seconds_per_step"]
        exact = "yes" if case["bytes_equal"] and case["flops_equal"] else "NO"
        print(
            f"{name:<36}{ratio(case['resident_sum']):>8.2f}{ranks:>20}"
            f"{planned:>9.4f}/{taken:.4f}{planned / taken:>9.2f}{exact:>8}{ratio(case['record']):>8.2f}",
            flush=True,
        )
    print(json.dumps(results | {"machine": description()}))


if __name__ == "__main__":
    main()
