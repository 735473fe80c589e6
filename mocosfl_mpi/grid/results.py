"""What lies in a grid's directory: the state of its runs, their configurations, the figures of those that are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mocosfl_mpi.config import to_toml
from mocosfl_mpi.cost.published import MEBIBYTE
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.grid.description import Grid, Trial
from mocosfl_mpi.grid.metrics import METRICS
from mocosfl_mpi.record.reader import Run, open_run
from mocosfl_mpi.record.schema import FILE_NAME
from mocosfl_mpi.resumption import refuse_another

CONFIGS = "configs"
"""Directory of the trials' configurations, beside their runs."""


@dataclass(frozen=True)
class Point:
    """One evaluation during a run."""

    epoch: int
    """Epochs completed; 0 = untrained."""
    mebibytes: float
    """What a simulated client, on average over all, has sent and received until then: MiB of payload."""
    knn_top1: float
    """kNN on encoder features, %, with the bank of ``evaluation.bank_images``."""


@dataclass(frozen=True)
class Figures:
    """What a completed run came to."""

    trial: Trial
    values: dict[str, float | None]
    """By metric of the grid; those that need no run are left out."""
    curve: tuple[Point, ...]
    seconds: float | None
    """Wall time of the whole run."""
    state_sha256: str | None


def check_metrics(grid: Grid) -> None:
    """Refuse a metric that does not exist (BadInput)."""
    named = {*grid.metrics, *(metric for metric, _ in grid.published)}
    for name in sorted(named - METRICS.keys()):
        raise BadInput(f"{grid.name}: there is no metric {name!r}; choose from {', '.join(METRICS)}")
    for name in sorted({metric for metric, _ in grid.published} - set(grid.metrics)):
        raise BadInput(f"{grid.name}: published.{name} is not shown; add {name!r} to metrics")


def completed(trial: Trial, directory: Path) -> bool | None:
    """Whether the trial's run is there and complete; None where it was not begun.

    Raises
    ------
    BadInput
        Another experiment lies in its place, or its file is damaged.
    """
    if not (directory / trial.name / FILE_NAME).exists():
        return None
    with _run_of(trial, directory) as run:
        return run.completed


def figures(grid: Grid, directory: Path) -> dict[str, Figures]:
    """By trial's name, of those that are complete. Raises what ``completed`` does."""
    found = {}
    for trial in grid.trials:
        if not completed(trial, directory):
            continue
        with _run_of(trial, directory) as run:
            values = {name: METRICS[name].of_run for name in grid.metrics}
            found[trial.name] = Figures(
                trial,
                {name: value(run) for name, value in values.items() if value},
                tuple(_curve(run)),
                run.result("wall_seconds"),
                run.state_sha256,
            )
    return found


def _curve(run: Run) -> Iterator[Point]:
    """What was seen of the run while it ran, and at its end."""
    spent = run["simulated/bytes"].sum(axis=(1, 2), dtype=np.int64).cumsum() / len(run["client"]) / MEBIBYTE
    looks = dict(zip(run["evaluations/epoch"].tolist(), run["evaluations/knn_top1"].tolist(), strict=True))
    final = run.result("knn_top1")
    if final is not None:
        looks.setdefault(len(spent), final)
    for epoch, knn in looks.items():
        yield Point(epoch, float(spent[epoch - 1]) if epoch else 0.0, knn)


def _run_of(trial: Trial, directory: Path) -> Run:
    run = open_run(directory / trial.name)
    try:
        refuse_another(run, trial.config)
    except BadInput:
        run.close()
        raise
    return run


def write_configurations(trials: Sequence[Trial], directory: Path) -> Path:
    """Write ``NAME.toml`` for each trial; the directory of them. BadInput where that cannot be done."""
    folder = directory / CONFIGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for trial in trials:
            (folder / f"{trial.name}.toml").write_text(to_toml(trial.config, trial.name), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error}; name another directory with --out") from None
    return folder
