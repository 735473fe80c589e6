"""The small runs in ``tests/analysis/runs``, unpacked, and what can be laid beside them."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import h5py
import numpy as np

from mocosfl_mpi.config import parse
from mocosfl_mpi.record.attacks import Outcome, attack_attributes, open_for_more

TESTS = Path(__file__).parent


def unpack(folder: Path, *names: str) -> Path:
    """``grid/`` (two methods, three cuts, three seeds) and every other run by its name; or only ``names``."""
    for packed in (TESTS / "analysis/runs").glob("*.h5.xz"):
        name = packed.name.removesuffix(".h5.xz")
        group = "grid" if "-seed" in name else name
        if not names or group in names:
            place = folder / group / name if group == "grid" else folder / name
            place.mkdir(parents=True)
            (place / "run.h5").write_bytes(lzma.decompress(packed.read_bytes()))
    if not names or "old" in names:
        (folder / "old").mkdir()
        old = TESTS / "unit/record/run-1.0.h5.gz"
        (folder / "old/run.h5").write_bytes(gzip.decompress(old.read_bytes()))
    return folder


def fifty(folder: Path) -> Path:
    """Fifty runs: five learning rates with ten seeds each; the linear probe of the n-th is n points better."""
    source = lzma.decompress((TESTS / "analysis/runs/mocosfl-cut4-seed0.h5.xz").read_bytes())
    for number in range(50):
        path = folder / f"run{number:02}" / "run.h5"
        path.parent.mkdir(parents=True)
        path.write_bytes(source)
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["config"])
            config["seed"], config["client"]["lr"] = number % 10, 0.01 * (1 + number // 10)
            changed = parse(config, "test")
            file.attrs["config"] = np.bytes_(changed.canonical())
            file.attrs["config_hash"] = np.bytes_(changed.hash())
            file.attrs["seed"] = number % 10
            file["result/linear_top1"][()] += number
    return folder


def attacks_on(folder: Path) -> None:
    """What two attacks came to, on trained and untrained networks."""
    facts = {"command": "mocosfl attack", "launcher": "none", "host": "here", "ranks": 1, "threads": 1, "versions": {}}
    scores = {"reconstruction": ("ridge", "ssim", "constant_mean"), "linkage": ("linkage", "top1", "chance")}
    file = open_for_more(folder, attack_attributes(parse({}, "test"), **facts))
    for number, (kind, (attack, metric, floor)) in enumerate(scores.items()):
        for trained in (True, False):
            key = f"{2 * number + trained:064x}"
            row = (key, "ab" * 32, 8, trained, attack, kind, "server", -1, "ours", 0, 8, 1.0, 0)
            scored = {metric: 0.5 + 0.1 * trained}
            file.add(Outcome(*row, seconds=1.0, scores=scored, floors={floor: {metric: 0.1}}))
    file.close()
