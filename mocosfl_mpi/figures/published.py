"""Published numbers, from the description of a grid: which of its cells a group of runs belongs to."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.figures.study import Study, flat
from mocosfl_mpi.grid.description import Grid, read_grid

NEUTRAL = ("compute", "evaluation", "seed")
"""Sections that make no other experiment of a cell."""


def add_published(arguments: argparse.ArgumentParser) -> None:
    """The argument ``--published``."""
    arguments.add_argument(
        "--published",
        type=Path,
        metavar="GRID.toml",
        help="show the published numbers of this grid (jobs/configs/*.toml) beside the runs of its cells",
    )


def published(path: Path | None, study: Study, metrics: Sequence[str]) -> pd.DataFrame:
    """Rows of ``group``, ``metric``, ``published``, for the groups whose cell in the grid has a number.

    A group belongs to a cell where it has all settings in which the grid's cells differ; other settings (network,
    images, number of steps) may be others than the published ones. The grid's source is said.

    Raises
    ------
    BadInput
        No grid there, or none of its published numbers belongs to any group.
    """
    columns = ["group", "metric", "published"]
    if path is None:
        return pd.DataFrame(columns=columns)
    grid = read_grid(path)
    cells = _cells(grid)
    rows = [
        (group.label, metric, number)
        for group in study.groups
        for labels, settings in cells.items()
        if all(group.settings.get(name) == value for name, value in settings.items())
        for metric in metrics
        if (number := grid.published.get((metric, labels))) is not None
    ]
    if not rows:
        differing = sorted({name for settings in cells.values() for name in settings})
        raise BadInput(
            f"--published {path}: none of its numbers for {', '.join(metrics)} belongs to these runs; its cells differ "
            f"in {', '.join(differing) or 'nothing'}"
        )
    study.say(f"published: {grid.source or 'the grid names no source'}")
    return pd.DataFrame(rows, columns=columns)


def _cells(grid: Grid) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Of each cell, the settings in which the grid's cells differ."""
    found = {trial.cell.labels: flat(trial.config.model_dump(mode="json")) for trial in grid.trials}
    names = [
        name
        for name in next(iter(found.values()))
        if name.partition(".")[0] not in NEUTRAL and len({repr(settings[name]) for settings in found.values()}) > 1
    ]
    return {labels: {name: settings[name] for name in names} for labels, settings in found.items()}
