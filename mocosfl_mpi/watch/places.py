"""Where the runs to be watched lie: those given, and those below given directories, begun or not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.checkpoint import DIRECTORY
from mocosfl_mpi.record.output import LOCK
from mocosfl_mpi.record.schema import FILE_NAME

_CONFIGS = "configs"
"""In a grid's directory, `NAME.toml` for each of its runs (``grid.results``)."""
_SIGNS = {FILE_NAME, f"{FILE_NAME}.part", LOCK, DIRECTORY}
"""By any of these a directory is that of a run."""
_DEPTH = 4


@dataclass(frozen=True)
class Place:
    """Where a run lies, or will."""

    label: str
    """The shortest name that tells it from the others."""
    file: Path

    @property
    def directory(self) -> Path:
        """Of the run."""
        return self.file.parent


def check(paths: Sequence[Path]) -> None:
    """Refuse a path where there is nothing at all (BadInput)."""
    for path in paths:
        try:
            there = path.exists()
        except OSError:
            there = False
        if not there:
            raise BadInput(
                f"there is no {path}; give the directory of a run (its --out), its run.h5, or that of a grid"
            )


def find(paths: Sequence[Path]) -> list[Place]:
    """All runs there at this moment, each once, in the order given and by name below that."""
    found: dict[Path, str] = {}
    for path in paths:
        for file in _files(path):
            own = file.parent if file.name == FILE_NAME else file
            inside = own.relative_to(path) if own.is_relative_to(path) else Path(own.name)
            parts = inside.parts if len(paths) == 1 else (path.name or str(path), *inside.parts)
            found.setdefault(file, "/".join(parts) or path.absolute().name)
    shown = list(found.values())
    return [Place(label if shown.count(label) == 1 else str(file.parent), file) for file, label in found.items()]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    below = [path] if _is_run(path) else sorted(_runs_below(path, _DEPTH))
    return [directory / FILE_NAME for directory in below or [path]]


def _is_run(directory: Path) -> bool:
    return any((directory / sign).exists() for sign in _SIGNS)


def _runs_below(directory: Path, depth: int) -> set[Path]:
    found = set()
    for entry in _entries(directory):
        if entry.name == _CONFIGS:
            found |= {directory / toml.stem for toml in Path(entry.path).glob("*.toml")}
        elif _is_run(Path(entry.path)):
            found.add(Path(entry.path))
        elif depth > 1:
            found |= _runs_below(Path(entry.path), depth - 1)
    return found


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from (entry for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:  # it has just gone, or is not ours to read
        return
