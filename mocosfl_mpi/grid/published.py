"""A grid's published numbers: of which settings each is, and where it stands; beside runs, as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mocosfl_mpi.config import flat
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.grid.description import Grid, read_grid

NAME = "published.json"
"""The file in a grid's directory."""
NEUTRAL = ("compute", "evaluation", "seed")
"""Sections that make no other experiment of a cell."""


@dataclass(frozen=True)
class Place:
    """One cell of a grid."""

    settings: Mapping[str, Any]
    """Of those in which the grid's cells differ, by `section.key`."""
    numbers: Mapping[str, float]
    """By metric."""


@dataclass(frozen=True)
class Published:
    """All of a grid."""

    source: str
    places: Sequence[Place]


def of_grid(grid: Grid) -> Published:
    """The numbers of a grid, by the settings in which its cells differ."""
    found = {trial.cell.labels: flat(trial.config.model_dump(mode="json")) for trial in grid.trials}
    names = [
        name
        for name in next(iter(found.values()))
        if name.partition(".")[0] not in NEUTRAL and len({repr(settings[name]) for settings in found.values()}) > 1
    ]
    places = [
        Place(
            {name: settings[name] for name in names},
            {metric: number for (metric, cell), number in grid.published.items() if cell == labels},
        )
        for labels, settings in found.items()
    ]
    return Published(grid.source, places)


def read_published(path: Path) -> Published:
    """The numbers of a grid's description, or of the file that stands beside its runs.

    Raises
    ------
    BadInput
        It cannot be read, or is neither.
    """
    if path.suffix != ".json":
        return of_grid(read_grid(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        places = [
            Place(dict(each["settings"]), {str(name): float(number) for name, number in each["numbers"].items()})
            for each in found["places"]
        ]
        return Published(str(found["source"]), places)
    except OSError as error:
        raise BadInput(f"cannot read published numbers: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise BadInput(f"{path} holds no published numbers ({text}): give the grid's description") from None


def write_published(grid: Grid, directory: Path) -> None:
    """Write ``NAME`` into a grid's directory, if the grid has any number. BadInput where that cannot be done."""
    if not grid.published:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / NAME).write_text(json.dumps(asdict(of_grid(grid)), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write to {directory}: {error}; name another directory with --out") from None
