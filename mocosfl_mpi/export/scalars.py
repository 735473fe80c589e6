"""Recorded series as TensorBoard scalars, over training steps completed.

Of a dataset with further axes: the mean over the pool's members that took part, the sum over layers, and a tag for each
label of any other axis. Wall time is that of the first session's start plus the seconds measured since.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.record.form import Entry
from mocosfl_mpi.record.reader import Run
from mocosfl_mpi.record.schema import ENTRIES
from mocosfl_mpi.record.summary import over_layers

_PLACES = frozenset({
    "steps/epoch", "syncs/epoch", "syncs/step", "syncs/clients", "epochs/clients", "evaluations/epoch",
    "evaluations/step", "evaluations/wall_seconds",
})  # fmt: skip
"""What tells where a row stands, and is no measure of anything."""
_NUMBERS = 2**20
"""Read at a time."""
_SERIES = ("step", "sync", "epoch", "evaluation")

Numbers = npt.NDArray[np.float64]


def write(run: Run, folder: Path) -> int:
    """Write one file of events; how many scalars are in it. BadInput where the run's file is damaged."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer, count = EventFileWriter(str(folder)), 0
    try:
        for tag, steps, times, values in series(run):
            for step, wall, value in zip(steps.tolist(), times.tolist(), values.tolist(), strict=True):
                summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
                writer.add_event(Event(wall_time=wall, step=step, summary=summary))
                count += 1
    finally:
        writer.close()
    return count


def series(run: Run) -> Iterator[tuple[str, npt.NDArray[np.int64], Numbers, Numbers]]:
    """Tag, steps completed, wall times in s since 1970, and values, which are numbers all; results come last."""
    positions = _positions(run)
    clock = _Clock(run)
    for name in run.names:
        entry = ENTRIES.get(name)
        if entry is None or entry.growing not in _SERIES or name in _PLACES:
            continue
        steps = positions[str(entry.growing)]
        for tag, values in _curves(run, entry):
            known = np.isfinite(values)
            if known.any():
                yield tag, steps[known], clock.at(steps[known]), values[known]
    end = np.array([run.rows["step"]])
    for name in run.names:
        entry = ENTRIES.get(name)
        if entry and entry.when == "result" and entry.dtype == "float64" and not entry.dims:
            value = run.result(name.removeprefix("result/"))
            if value is not None:
                yield name, end, clock.at(end), np.array([value])


def _positions(run: Run) -> dict[str, npt.NDArray[np.int64]]:
    """Of each series, training steps completed when its rows were written."""
    steps = np.arange(1, run.rows["step"] + 1)
    ends = np.searchsorted(run["steps/epoch"], np.arange(run.rows["epoch"]), side="right")
    return {
        "step": steps,
        "sync": run["syncs/step"] + 1,
        "epoch": ends.astype(np.int64),
        "evaluation": run["evaluations/step"],
    }


class _Clock:
    """Wall time of a training step, between the ends of epochs in equal parts."""

    def __init__(self, run: Run) -> None:
        start = datetime.fromisoformat(run.attrs["date"]).timestamp()
        if "sessions/start" in run.names and run.rows["session"]:
            start = float(run["sessions/start"][0])
        spent = np.nan_to_num(np.nansum(run["measured/seconds"], axis=2)).max(axis=1, initial=0.0)
        self._steps = np.concatenate([[0], _positions(run)["epoch"]])
        self._times = start + np.concatenate([[0.0], np.cumsum(spent)])

    def at(self, steps: npt.NDArray[np.int64]) -> Numbers:
        """Seconds since 1970 when so many steps were completed."""
        return np.asarray(np.interp(steps, self._steps, self._times), dtype=np.float64)


def _curves(run: Run, entry: Entry) -> Iterator[tuple[str, Numbers]]:
    labels = [run[axis].tolist() for axis in entry.dims[1:] if axis not in ("member", "layer")]
    rows = np.concatenate([_reduced(entry, part) for part in _parts(run, entry)])
    for place in np.ndindex(rows.shape[1:]):
        words = [str(names[index]) for names, index in zip(labels, place, strict=True)]
        yield "/".join([entry.name, *words]), rows[(slice(None), *place)]


def _parts(run: Run, entry: Entry) -> Iterator[npt.NDArray[Any]]:
    """Rows of bounded size: all of them together may be more than memory holds."""
    rows = run.rows[str(entry.growing)]
    slab = max(1, _NUMBERS // math.prod(len(run[axis]) for axis in entry.dims[1:]))
    for start in range(0, max(rows, 1), slab):
        yield run.part(entry.name, start, min(start + slab, rows))


def _reduced(entry: Entry, rows: npt.NDArray[Any]) -> Numbers:
    """Layers, the last axis, added up; members, the one after the rows, averaged over those that took part."""
    if "layer" in entry.dims:
        rows = over_layers(rows)
    values = rows.astype(np.float64)
    if "member" not in entry.dims:
        return values
    known = np.isfinite(values)
    count = known.sum(axis=1)
    mean: Numbers = np.where(count, np.where(known, values, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
    return mean
