"""Published numbers, from the description of a grid: which of its cells a group of runs belongs to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.grid.published import read_published


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
    found = read_published(path)
    rows = [
        (group.label, metric, place.numbers[metric])
        for group in study.groups
        for place in found.places
        if all(group.settings.get(name) == value for name, value in place.settings.items())
        for metric in metrics
        if metric in place.numbers
    ]
    if not rows:
        differing = sorted({name for place in found.places for name in place.settings})
        raise BadInput(
            f"--published {path}: none of its numbers for {', '.join(metrics)} belongs to these runs; its cells differ "
            f"in {', '.join(differing) or 'nothing'}"
        )
    study.say(f"published: {found.source or 'the grid names no source'}")
    return pd.DataFrame(rows, columns=columns)
