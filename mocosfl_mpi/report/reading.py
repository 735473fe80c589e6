"""Every run of a page, read once: what can be read, what cannot and why."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.figures.study import complete, find
from mocosfl_mpi.record import show, verdicts
from mocosfl_mpi.record.reader import Run, open_run
from mocosfl_mpi.record.schema import FILE_NAME
from mocosfl_mpi.record.standing import Standing, standing
from mocosfl_mpi.report.parts import Sheet, sheets
from mocosfl_mpi.report.remarks import Remark, remarks


@dataclass(frozen=True)
class Seen:
    """One run."""

    path: Path
    """Of its file."""
    name: str
    anchor: str
    standing: Standing
    summary: Mapping[str, Any]
    facts: Mapping[str, str]
    settings: Mapping[str, Any]
    """Flat, by `section.key`; defaults included."""
    results: Sequence[Sheet]
    health: Sequence[Sheet]
    ledger: Sequence[Sheet]
    computation: Sequence[Sheet]
    remarks: Sequence[Remark]
    versions: Mapping[str, str]
    command: str
    toml: str
    idle_seconds: float
    """Since its file was last written."""
    seconds_left: float | None
    """At the pace of the epochs so far; None where that cannot be told, or nothing is at work."""

    @property
    def place(self) -> Path:
        """What commands take for the run: its directory, or its file where that has a name of its own."""
        return self.path.parent if self.path.name == FILE_NAME else self.path


@dataclass(frozen=True)
class Reading:
    """All runs of a page."""

    runs: Sequence[Seen]
    unreadable: Sequence[tuple[str, str]]
    """Name, and the message about it."""


def read(paths: Sequence[Path]) -> Reading:
    """Read every run that ``paths`` name, as the scripts of the analysis understand them.

    Raises
    ------
    BadInput
        A path does not exist, or no run at all can be read.
    """
    for path in paths:
        try:
            there = path.exists()
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error}") from None
        if not there:
            raise BadInput(f"no run at {path}: expected a run's directory, its {FILE_NAME}, or a directory of runs")
    runs: list[Seen] = []
    failed: list[tuple[str, BadInput]] = []
    for file in find(paths):
        try:
            with open_run(file) as run:
                runs.append(_seen(run, len(runs) + 1))
        except BadInput as error:
            failed.append((name_of(file), error))
    if not runs:
        raise failed[0][1]
    return Reading(runs, [(name, str(error)) for name, error in failed])


def name_of(path: Path) -> str:
    """What people call a run: the directory of its file, or the file where that has a name of its own."""
    return path.resolve().parent.name if path.name == FILE_NAME else path.stem


def _seen(run: Run, number: int) -> Seen:
    summary, how = run.summary(), standing(run)
    attrs = run.attrs
    return Seen(
        path=run.path,
        name=name_of(run.path),
        anchor=f"run-{number}",
        standing=how,
        summary=summary,
        facts=show.facts(run, summary),
        settings=complete(attrs["config"]),
        results=_sheets(verdicts.quality(summary), *verdicts.own_models(summary), *verdicts.further(run, summary)),
        health=_sheets(show.training(summary), *show.similarity(summary)),
        ledger=_sheets(show.spending(summary), *show.failures(summary)),
        computation=_sheets(show.measured(summary)),
        remarks=tuple(remarks(run, summary)),
        versions={"mocosfl_mpi": str(attrs["software_version"]), **{k: str(v) for k, v in attrs["versions"].items()}},
        command=str(attrs["command"]),
        toml=str(attrs["config_toml"]),
        idle_seconds=max(0.0, time.time() - run.path.stat().st_mtime),
        seconds_left=_left(run, summary) if how == "running" else None,
    )


def _sheets(*shown: Any) -> tuple[Sheet, ...]:
    return tuple(sheet for part in shown if isinstance(part, Group) for sheet in sheets(part))


def _left(run: Run, summary: Mapping[str, Any]) -> float | None:
    """Remaining epochs at the mean pace of rank 0 in those that are over."""
    seconds, planned = run["measured/seconds"], summary["epochs_planned"]
    if not len(seconds) or not isinstance(planned, int):
        return None
    pace = float(np.nansum(seconds[:, 0], axis=1).mean())
    return pace * max(0, planned - len(seconds))
