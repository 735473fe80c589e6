"""Carrying whole rows and results of an earlier file into a fresh one: to continue a run, or to mend a killed one's."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.record.integrity import damage
from mocosfl_mpi.record.layout import Size, create_datasets, row_shape, scale_values, write_attributes
from mocosfl_mpi.record.reader import Record, Run, open_run
from mocosfl_mpi.record.schema import ATTRIBUTES, COMMITTED, DIMENSIONS, ENTRIES, SCHEMA_VERSION, present

SLAB = 2**25
"""Bytes carried at once."""


def carry(record: Record, rows: Mapping[str, int], file: h5py.File) -> None:
    """Copy the first ``rows`` of every series of ``record``, and its results, into ``file``, which has none yet.

    Axes that have grown (ranks) keep their fill values behind the old ones.
    """
    growing = record.form.growing
    for name in record.names:
        entry = record.form.entries.get(name)
        dim = entry.growing if entry else (name if name in growing else None)
        if dim is not None:
            _carry_rows(record, name, rows.get(dim, 0), file[name])
        elif entry and entry.when == "result":
            file[name][...] = as_stored(record.stored(name), file[name])
    file[COMMITTED][...] = [rows.get(dim, 0) for dim in growing]


def as_stored(values: npt.NDArray[Any], target: h5py.Dataset) -> npt.NDArray[Any]:
    """``values`` in the type of ``target``: numpy forgets that bytes are UTF-8, and HDF5 converts from no other."""
    if values.dtype.kind != "S":
        return values
    return np.array(values.tolist(), dtype=target.dtype)


def _carry_rows(record: Record, name: str, rows: int, target: h5py.Dataset) -> None:
    target.resize(rows, axis=0)
    width = max(1, math.prod(target.shape[1:]) * target.dtype.itemsize)
    step = max(1, SLAB // width)
    for start in range(0, rows, step):
        part = record.part(name, start, min(start + step, rows))
        target[(slice(start, start + len(part)), *(slice(0, length) for length in part.shape[1:]))] = as_stored(
            part, target
        )


def recover(path: Path) -> dict[str, int]:
    """Make the file of a killed run a clean, closed one, in place; its whole rows per dimension.

    Raises
    ------
    BadInput
        No run, or one whose whole rows cannot be read.
    RunFailed
        The clean file cannot be written; the old one stays as it is.
    """
    with open_run(path) as run:
        sizes: dict[str, Size] = {
            name: run[name].tolist() for name, dimension in DIMENSIONS.items() if name in run.names and dimension.given
        }
        attributes: dict[str, Any] = {name: run.raw_attribute(name) for name in ATTRIBUTES}
        attributes["schema_version"] = SCHEMA_VERSION
        config = run.attrs["config"]
        # What an earlier version did not record is a number that was 0 then.
        known = [name for name in present(config) if name in ENTRIES and ENTRIES[name].when == "fixed"]
        fixed: dict[str, Any] = {name: run[name] if name in run.names else 0 for name in known if name != COMMITTED}
        with damage(run.path):
            scales = scale_values(sizes, config)
            fixed = {name: _grown(value, row_shape(ENTRIES[name], scales)) for name, value in fixed.items()}
        part = run.path.with_name(run.path.name + ".recovered")
        try:
            with h5py.File(part, "w", libver="latest") as file:
                write_attributes(file, attributes)
                create_datasets(file, present(config), scales, fixed)
                carry(run, run.rows, file)
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            part.replace(run.path)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            text = " ".join(str(error).split())[:300]
            raise RunFailed(f"cannot write {part}: {text}. {run.path} is as it was; free some space first") from None
        return run.rows


def _grown(value: Any, shape: tuple[int, ...]) -> Any:
    """A value with zeros for the labels that have since been added at the end of its axes."""
    now = np.asarray(value)
    more = [(0, max(0, wanted - length)) for length, wanted in zip(now.shape, shape, strict=False)]
    return np.pad(now, more) if any(end > 0 for _, end in more) else value


def rows_or_refuse(run: Run, wanted: Mapping[str, int]) -> None:
    """Refuse a file that lacks rows which a checkpoint counts on (BadInput)."""
    lacking = {dim: count for dim, count in wanted.items() if run.rows.get(dim, 0) < count}
    if lacking:
        raise BadInput(
            f"{run.path} holds { ({dim: run.rows.get(dim, 0) for dim in lacking}) } rows and the checkpoint beside it "
            f"counts on {lacking}: the file is older than the checkpoint or was cut. Bring back the {run.path.name} "
            f"that belongs to it, or start again in another directory"
        )
