"""What an audit says of a run beside its attacks: what protects clients, what the weights are worth, what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mocosfl_mpi.audit.requirements import UTILITIES
from mocosfl_mpi.config import Config
from mocosfl_mpi.record.protected import protection, words
from mocosfl_mpi.record.reader import Run, open_run

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Material:
    """Figures of the run at the attacked checkpoint."""

    name: str
    config: Config
    steps: int
    """Completed at the checkpoint."""
    all_steps: int
    """Completed by the run."""
    utility: dict[str, float]
    """Accuracies in % of the very weights that were attacked, by ``UTILITIES``; unknown ones are left out."""
    beside: dict[str, float]
    """The same of the untrained network and of raw pixels, by ``NAME_untrained`` and ``NAME_pixels``."""
    mebibytes: float
    """What a simulated client, on average over all, has sent and received in the run: MiB (2^20 bytes) of payload."""
    defences: list[tuple[str, str]]
    """What protects clients: a name and what it does."""


def collect(directory: Path, config: Config, steps: int) -> Material:
    """Read the run's file. Raises what ``open_run`` does."""
    with open_run(directory) as run:
        whole = run.completed and run.rows["step"] == steps
        results = {name: run.result(name) for name in UTILITIES}
        others = {
            f"{name}_{kind}": run.result(f"{name}_{kind}") for name in UTILITIES for kind in ("untrained", "pixels")
        }
        sent = run["simulated/bytes"].sum(dtype=np.int64) / config.client.count / MEBIBYTE
        return Material(
            directory.name,
            config,
            steps,
            run.rows["step"],
            _known(results) if whole else _seen(run, steps),
            _known(others),
            float(sent),
            defences(config, protection(run)),
        )


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _seen(run: Run, steps: int) -> dict[str, float]:
    """The evaluation during the run that judged the weights after ``steps``, if there was one."""
    at = run["evaluations/step"].tolist()
    return {"knn_top1": float(run["evaluations/knn_top1"][at.index(steps)])} if steps in at else {}


def defences(config: Config, protected: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What stands between a client's images and those who look, in words; ``protected``: as recorded."""
    found = [("defences at the cut", words(protected))] if protected else []
    if config.client.pretrained:
        found.append(("pretrained client models", "clients began with an expert that a first stage had trained"))
    if config.model.bottleneck:
        found.append((f"bottleneck {config.model.bottleneck}", "smashed data pass through fewer channels or positions"))
    if config.client.frozen:
        found.append(
            ("frozen client models", "clients ignore gradients, and a main server cannot steer what they send")
        )
    if config.communication.smashed != "none":
        found.append(
            (f"{config.communication.smashed} coding", "smashed data are rounded or cut to their largest numbers")
        )
    return found
