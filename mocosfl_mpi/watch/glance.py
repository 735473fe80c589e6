"""What can be told of a run at one moment: read anew from its file each time, with no lock, and closed again at once.

The file may be missing yet, be replaced by that of a resumption, belong to a killed run, be damaged, or be gone: each
is a state with a sentence, never an exception.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.cautions import cautions
from mocosfl_mpi.record.integrity import damage, require
from mocosfl_mpi.record.output import at_work, holder
from mocosfl_mpi.record.reader import Run, open_run
from mocosfl_mpi.record.summary import essentials, over_layers
from mocosfl_mpi.speaker import clock
from mocosfl_mpi.watch.places import Place, find

COMPLETE, RUNNING, STARTING, STOPPED, KILLED, MISSING, GONE, UNREADABLE = (
    "complete", "running", "starting", "stopped", "killed", "not begun", "gone", "unreadable",
)  # fmt: skip
STATES = {
    COMPLETE: "reached its end",
    RUNNING: "a process is at work",
    STARTING: "a process is at work and has written nothing yet",
    STOPPED: "not at its end, and nothing is at work in its directory",
    KILLED: "not at its end, and the process that held it is gone; the same command continues it",
    MISSING: "nothing has begun there",
    GONE: "it was there before, and is no longer",
    UNREADABLE: "its file cannot be read",
}
POINTS = 60
"""Of a curve, at most."""
_FEW_EPOCHS = 12
"""With fewer, the loss is drawn by steps."""
_PACE = 5
"""Of so many epochs the mean is taken to estimate the time that is left."""
_SILENCE = 60.0
"""Seconds without a row before anybody wonders."""
_AGAIN = 0.2
"""Seconds before a file is read again that was being replaced."""

Series = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Content:
    """What a run's file says."""

    summary: dict[str, Any]
    steps_planned: int | None
    """Of the whole run; None before the first epoch is over, unless the configuration says."""
    seconds: float
    """Of computation, until the last whole epoch, or in all."""
    pace: float | None
    """Seconds that an epoch takes, of the latest ones."""
    loss: Series
    knn: Series
    divergence: Series
    """Online models from their mean before each synchronisation, as ``summary`` has it for the last."""
    distance: Series
    """Online–momentum distance after each synchronisation."""
    idle: list[float]
    """Share of the last epoch in which each rank of it waited."""
    warnings: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Glance:
    """A run at one moment."""

    label: str
    path: Path
    state: str
    """One of ``STATES``."""
    message: str = ""
    """Why it cannot be read."""
    content: Content | None = None
    left: float | None = None
    """Seconds until its end, estimated."""
    warnings: list[str] = field(default_factory=list)

    @property
    def share(self) -> float | None:
        """Of the steps that are done."""
        if self.content is None:
            return None
        if self.state == COMPLETE:
            return 1.0
        planned = self.content.steps_planned
        return min(1.0, self.content.summary["steps"] / planned) if planned else 0.0

    @property
    def progress(self) -> str:
        """In words: epochs and steps."""
        if self.content is None:
            return ""
        summary, planned = self.content.summary, self.content.steps_planned
        steps = f"{summary['steps']}/{planned}" if planned else f"{summary['steps']}"
        return f"epoch {summary['epochs']}/{summary['epochs_planned']}, step {steps}"


class Watcher:
    """Looks at runs again and again; what has not changed on the disk is not read again."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._known: dict[Path, tuple[tuple[int, ...], Content]] = {}

    def look(self) -> list[Glance]:
        """Every run as it is now."""
        places = {place.file: place for place in find(self._paths)}
        # A directory that vanished takes its runs with it: they are told of, not forgotten.
        for file in self._known.keys() - places.keys():
            places[file] = Place(str(file.parent), file)
        return [self._glance(place) for place in places.values()]

    def _glance(self, place: Place) -> Glance:
        known = self._known.get(place.file)
        content = known[1] if known else None
        try:
            found = place.file.stat()
        except OSError:
            if content is not None:
                return Glance(place.label, place.file, GONE, "", content)
            return Glance(place.label, place.file, MISSING if at_work(place.directory) is False else STARTING)
        signature = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if known is None or known[0] != signature:
            try:
                content = _read(place.file)
            except BadInput as error:
                return Glance(place.label, place.file, UNREADABLE, str(error), content)
            self._known[place.file] = signature, content
        assert content is not None
        return _placed(place, content, max(0.0, time.time() - found.st_mtime))


def _placed(place: Place, content: Content, silent: float) -> Glance:
    """``silent``: seconds since the file was written to."""
    state = COMPLETE
    if not content.summary["completed"]:
        busy = at_work(place.directory)
        # A directory whose lock is gone belongs to nobody; one whose holder is gone lost it without a word.
        state = RUNNING if busy is not False else KILLED if holder(place.directory) else STOPPED
    left, warnings = None, list(content.warnings)
    if state == RUNNING:
        left = _left(content, silent)
        if silent > max(_SILENCE, 5 * (content.pace or 0.0)):
            usual = f", and an epoch takes {clock(content.pace)}" if content.pace else ""
            warnings.append(f"Nothing was written for {clock(silent)}{usual}: is it still at work?")
    return Glance(place.label, place.file, state, "", content, left, warnings)


def _left(content: Content, silent: float) -> float | None:
    planned, steps, pace = content.steps_planned, content.summary["steps"], content.pace
    if not planned or pace is None:
        return None
    each = pace * int(content.summary["epochs_planned"]) / planned
    return max(0.0, (planned - int(steps)) * each - silent)


def _read(file: Path) -> Content:
    """The file's content, at the second attempt if it was being replaced at the first. BadInput where it is damaged."""
    try:
        return _content(file)
    except BadInput:
        time.sleep(_AGAIN)
        return _content(file)


def _content(file: Path) -> Content:
    with open_run(file, locks=False) as run, damage(file):
        summary = essentials(run)
        epochs, planned = summary["epochs"], summary["epochs_planned"]
        require(isinstance(planned, int), f"its configuration asks for {planned!r} epochs")
        rows, per_epoch = run["steps/epoch"], run.attrs["config"].get("steps_per_epoch")
        if epochs:
            per_epoch = int((rows == epochs - 1).sum())
        spent = np.nan_to_num(np.nansum(run["measured/seconds"], axis=2)).max(axis=1, initial=0.0)
        idle = run.last("measured/idle_share")
        by_steps = epochs < _FEW_EPOCHS
        loss = run["steps/loss" if by_steps else "epochs/loss"]
        wall = summary["wall_seconds"]
        return Content(
            summary,
            per_epoch * planned if isinstance(per_epoch, int) and per_epoch > 0 else None,
            float(spent.sum()) if wall is None else wall,
            float(spent[-_PACE:].mean()) if epochs else None,
            thinned(loss),
            thinned(run["evaluations/knn_top1"]),
            _divergence(run),
            thinned(_means(run["after_sync/online_momentum_distance"])),
            [] if idle is None else [float(share) for share in idle if np.isfinite(share)],
            cautions(summary | {"completed": True}),  # that it goes on is what everybody knows who watches it
            [str(note) for note in run.attrs["notes"]],
        )


def _divergence(run: Run) -> Series:
    """Of evenly spread synchronisations: the whole array may be large."""
    name, rows = "divergence/online_mean", run.rows["sync"]
    chosen = sorted({round(row) for row in np.linspace(0, rows - 1, min(rows, POINTS)).tolist()})
    return np.array([float(_means(over_layers(run.part(name, row, row + 1)))[0]) for row in chosen])


def _means(rows: npt.NDArray[Any]) -> Series:
    """Mean over the members that took part, NaN where nobody did."""
    known = np.isfinite(rows)
    count = known.sum(axis=1)
    total: Series = np.where(known, rows, 0.0).sum(axis=1, dtype=np.float64)
    return np.where(count, total / np.maximum(count, 1), np.nan)


def thinned(values: npt.NDArray[Any], points: int = POINTS) -> Series:
    """At most ``points`` values: means of stretches of equal length, those that are no numbers left out."""
    if len(values) <= points:
        return np.asarray(values, dtype=np.float64)
    parts = np.array_split(np.asarray(values, dtype=np.float64), points)
    return np.array([part[np.isfinite(part)].mean() if np.isfinite(part).any() else np.nan for part in parts])
