"""What a check found, and what every check may know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from mocosfl_mpi.doctor.start import Start, start


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    status: Literal["ok", "warning", "failure"]
    text: str
    """What was found."""
    mend: str = ""
    """What to do about it; empty where nothing is to be done."""


def ok(text: str) -> Finding:
    """Nothing to be done."""
    return Finding("ok", text)


def warning(text: str, mend: str) -> Finding:
    """A run works, but slowly or with something missing."""
    return Finding("warning", text, mend)


def failure(text: str, mend: str) -> Finding:
    """A run would fail or lose results."""
    return Finding("failure", text, mend)


@dataclass
class Patient:
    """The machine as the user wants to use it."""

    out: Path = Path("runs")
    """Where results shall lie; need not exist yet."""
    ranks: int = 2
    data_dir: Path | None = None
    starts: dict[int, Start] = field(default_factory=dict)
    """MPI jobs that were started so far, by number of ranks."""

    def started(self, ranks: int) -> Start:
        """An MPI job of ``ranks`` probes, started at the first call only; 1 needs no launcher."""
        if ranks not in self.starts:
            self.starts[ranks] = start(ranks)
        return self.starts[ranks]

    @property
    def directory(self) -> Path:
        """The directory ``out``, or the nearest one above it that exists."""
        path = self.out.absolute()
        return next(place for place in (path, *path.parents) if place.is_dir())


Check: TypeAlias = Callable[[Patient], Finding]
