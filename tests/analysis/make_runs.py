"""Make the runs that the tests of the analysis read: real ones, tiny, each packed to some 20 KB.

    python tests/analysis/make_runs.py [NAME…]

Cost: 32 runs of a dozen steps, about five minutes of one core. Beside the grid of ``grid.toml`` there are runs of every
kind that a figure must bear: others of ranks, clients and synchronisations, whole networks, labels, clients that
fail, one epoch, one client, and one that was killed. NAME: only these runs (`grid`, `killed`, or one of ``OTHERS``).
"""

from __future__ import annotations

import lzma
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PACKED = HERE / "runs"
TINY = (
    "epochs=3", "views.size=8", "server.lr=0.01", "client.lr=0.01", "compute.precision=fp32",
    "compute.backend=stacked", "seed=0",
)  # fmt: skip
OTHERS: dict[str, tuple[int, tuple[str, ...]]] = {
    "ranks2": (2, ("model.cut_layer=1",)),
    "ranks3": (3, ("model.cut_layer=1",)),
    "clients6": (1, ("model.cut_layer=1", "client.count=6")),
    "clients24": (1, ("model.cut_layer=1", "client.count=24")),
    "sync1": (1, ("model.cut_layer=1", "federation.sync_freq=1")),
    "sync4": (1, ("model.cut_layer=1", "federation.sync_freq=4")),
    "fl_moco": (1, ("method=fl_moco",)),
    "fedema": (1, ("method=fedema",)),
    "fedavg": (1, ("method=fedavg",)),
    "split_vanilla": (1, ("method=split_vanilla", "epochs=4")),
    "failing": (1, ("reliability.client_dropout=0.4", "reliability.sync_miss=0.3")),
    "one_epoch": (1, ("epochs=1",)),
    "one_client": (1, ("client.count=1", "client.sampling_ratio=1.0", "partition.kind=iid")),
}
"""By name: MPI ranks, and what is set."""


def mocosfl(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mocosfl_mpi", *arguments]


def single(name: str, ranks: int, settings: tuple[str, ...]) -> list[str]:
    sets = [word for setting in (*TINY, *settings) for word in ("--set", setting)]
    return mocosfl("run", "smoke", "-n", str(ranks), "--out", name, *sets)


def kill(folder: Path) -> None:
    """A run of many epochs that ends by SIGKILL once a few of them are in its file."""
    command = single("killed", 1, ("epochs=400", "evaluation.every=2"))
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 4/"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def main(names: list[str]) -> None:
    """Run everything, or what is named, in a directory of its own and pack the files."""
    wanted = names or ["grid", *OTHERS, "killed"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "grid" in wanted:
            grid = mocosfl("grid", str(HERE / "grid.toml"), "--out", "grid", "--run")
            subprocess.run(grid, cwd=folder, check=True)
        for run, (ranks, settings) in OTHERS.items():
            if run in wanted:
                subprocess.run(single(run, ranks, settings), cwd=folder, check=True)
        if "killed" in wanted:
            kill(folder)
        PACKED.mkdir(exist_ok=True)
        for path in sorted(folder.rglob("run.h5")):
            (PACKED / f"{path.parent.name}.h5.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))
        print(sum(path.stat().st_size for path in PACKED.iterdir()), "bytes in", PACKED)


if __name__ == "__main__":
    main(sys.argv[1:])
