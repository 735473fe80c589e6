"""The recorder: rank 0 appends rows to the run's file, which can be read at any moment, also after a kill."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.record.carry import as_stored, carry
from mocosfl_mpi.record.form import Form
from mocosfl_mpi.record.layout import Size, check, create_datasets, row_shape, scale_values, write_attributes
from mocosfl_mpi.record.reader import Record
from mocosfl_mpi.record.schema import COMMITTED, RUN, present

_P = ParamSpec("_P")
_T = TypeVar("_T")
Row = dict[str, npt.NDArray[Any]]
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota on this disk is used up",
    errno.EFBIG: "a limit on file sizes is reached",
}


class Writer:
    """An open file to which rows are appended (h5py in SWMR mode); use ``create``."""

    form: ClassVar[Form]

    def __init__(self, file: h5py.File, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.path = path
        self._file = file
        self._shapes = shapes
        entries, growing = self.form.entries, self.form.growing
        self._datasets: dict[str, h5py.Dataset] = {name: file[name] for name in (*shapes, *growing)}
        self._members = {dim: frozenset(name for name in shapes if entries[name].growing == dim) for dim in growing}
        self._rows: dict[str, list[Row]] = {dim: [] for dim in growing}
        self._committed = np.zeros(len(growing), dtype=np.int64)
        self._open = True

    @classmethod
    def create(
        cls,
        path: Path,
        sizes: Mapping[str, Size],
        attrs: Mapping[str, str | int],
        fixed: Mapping[str, npt.ArrayLike],
        earlier: tuple[Record, Mapping[str, int]] | None = None,
    ) -> Self:
        """Create the file with everything in it that it will ever hold, and start SWMR mode.

        With ``earlier``, the whole new file takes the place of the old one in one step: a kill leaves one of them.

        Parameters
        ----------
        path
            The file, usually ``RUN/run.h5``; it appears under this name only once it can be read.
        sizes
            Length or labels of every dimension that is neither the schema's nor the configuration's: of a run's file
            ``client``, ``member``, ``class``, ``layer``, ``rank``, ``phase``, ``age``.
        attrs
            Root attributes, from ``attributes.run_attributes`` or ``attack_attributes``.
        fixed
            A value for every ``fixed`` entry of the schema.
        earlier
            The file that is continued, and how many of its rows: later ones are dropped, to be computed again.

        Raises
        ------
        BadInput
            The file exists and is not continued, the earlier one is damaged, or its directory cannot be written.
        RunFailed
            The disk is full.
        ValueError
            Names or shapes that the schema does not know (programmer errors).
        """
        if path.exists() and earlier is None:
            raise BadInput(f"{path} exists; results are never overwritten: name another directory with --out")
        config = json.loads(str(attrs["config"]))
        scales = scale_values(sizes, config, cls.form)
        content = image(scales, attrs, fixed, cls.form)
        part = path.with_name(path.name + ".part")
        try:
            part.write_bytes(content)
            file = h5py.File(part, "r+", libver="latest", locking="best-effort")
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise _full(path, error, cls.form) from None
            raise BadInput(f"cannot create {part}: {error}; name another directory with --out") from None
        entries = [cls.form.entries[name] for name in present(config, None, cls.form) if name in cls.form.entries]
        recorder = cls(file, path, {entry.name: row_shape(entry, scales) for entry in entries})
        try:
            if earlier is not None:
                recorder._write(recorder._carry, *earlier)
            recorder._write(recorder._begin, part)
        except (BadInput, RunFailed):
            part.unlink(missing_ok=True)
            raise
        return recorder

    def append(self, dim: str, row: Mapping[str, npt.ArrayLike]) -> None:
        """Keep one row of every dataset that grows along ``dim`` until the next ``flush``.

        Parameters
        ----------
        dim
            ``step``, ``sync``, ``epoch`` or ``evaluation``; ``job`` of a file of attacks.
        row
            Dataset name to value, without the growing axis: ``{"epochs/loss": 2.1, …}``.

        Raises
        ------
        KeyError
            Names missing or unknown.
        ValueError
            Wrong shape or type.
        """
        names = self._members[dim]
        if set(row) != names:
            raise KeyError(f"{dim}: missing {sorted(names - set(row))}, unknown {sorted(set(row) - names)}")
        self._rows[dim].append(
            {name: check(self.form.entries[name], value, self._shapes[name]) for name, value in row.items()}
        )

    def flush(self) -> None:
        """Write all kept rows; when this returns they survive a kill. RunFailed where the disk is full."""
        if not any(self._rows.values()):
            return
        self._write(self._flush)

    def put(self, name: str, value: npt.ArrayLike) -> None:
        """Store a result, safely in the file on return. KeyError for a name that is no result of this run."""
        if name not in self._shapes or self.form.entries[name].when != "result":
            raise KeyError(f"{name!r} is no result entry of the schema, or the configuration does not ask for it")
        values = check(self.form.entries[name], value, self._shapes[name])
        self._write(self._put, name, values)

    def sync(self) -> dict[str, int]:
        """Write all kept rows through to the disk itself; how many whole rows it holds per dimension."""
        self.flush()
        self._write(os.fsync, self._file.id.get_vfd_handle())
        return dict(zip(self.form.growing, self._committed.tolist(), strict=True))

    def close(self) -> None:
        """Write what is kept and close the file; after a failed write there is nothing left to do."""
        if not self._open:
            return
        self.flush()
        self._write(self._file.close)
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            with contextlib.suppress(RunFailed):  # the first failure is the one to report
                self.close()

    # ------------------------------------------------------------------------------------------- to the disk

    def _carry(self, record: Record, rows: Mapping[str, int]) -> None:
        carry(record, rows, self._file)
        self._committed = np.array([rows.get(dim, 0) for dim in self.form.growing], dtype=np.int64)

    def _begin(self, part: Path) -> None:
        self._file.swmr_mode = True
        self._file.flush()
        part.replace(self.path)

    def _flush(self) -> None:
        written = self._committed.copy()
        for index, dim in enumerate(self.form.growing):
            rows = self._rows[dim]
            start, end = int(written[index]), int(written[index]) + len(rows)
            if not rows:
                continue
            for name in self._members[dim]:
                self._extend(name, start, np.stack([row[name] for row in rows]))
            self._extend(dim, start, np.arange(start, end))
            written[index] = end
        # Two flushes: within one, HDF5 chooses the order, and the counter could be written before the rows.
        self._file.flush()
        self._datasets[COMMITTED][...] = written
        self._file.flush()
        self._committed = written
        for waiting in self._rows.values():
            waiting.clear()

    def _extend(self, name: str, start: int, values: npt.NDArray[Any]) -> None:
        dataset = self._datasets[name]
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = as_stored(values, dataset)

    def _put(self, name: str, values: npt.NDArray[Any]) -> None:
        self._datasets[name][...] = values
        self._file.flush()

    def _write(self, action: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        if not self._open:
            raise RunFailed(f"{self.path} is closed, or a write to it failed before; earlier rows are safe")
        try:
            return action(*args, **kwargs)
        except (OSError, RuntimeError) as error:
            self._give_up()
            raise _full(self.path, error, self.form) from None

    def _give_up(self) -> None:
        self._open = False
        for waiting in self._rows.values():
            waiting.clear()
        _sink(self._file)


class Recorder(Writer):
    """The open file of a running experiment; use ``Recorder.create``."""

    form = RUN

    @property
    def ranks(self) -> int:
        """Ranks for which a row has room: those of the largest session of the run."""
        return self._shapes["measured/seconds"][0]

    def complete(self, state_sha256: str) -> None:
        """Write what is kept and the hash of the trained state, then mark the run as completed."""
        self.flush()
        self.put("result/state_sha256", state_sha256)
        self.put("result/completed", 1)


def image(
    scales: Mapping[str, npt.NDArray[Any]],
    attrs: Mapping[str, str | int],
    fixed: Mapping[str, npt.ArrayLike],
    form: Form = RUN,
) -> bytes:
    """The file as it is before the first row, made in memory: HDF5 never meets a full disk half-way through."""
    with h5py.File("image", "w", driver="core", backing_store=False, libver="latest") as file:
        write_attributes(file, attrs, form)
        create_datasets(file, present(json.loads(str(attrs["config"])), None, form), scales, fixed, form)
        file.flush()
        return bytes(file.id.get_file_image())


def _full(path: Path, error: OSError | RuntimeError, form: Form) -> RunFailed:
    """The failure for a person. h5py raises OSError or RuntimeError, often with the number only in the text."""
    text = " ".join(str(error).split())
    reason = text[:300]
    for number, words in _FULL.items():
        if getattr(error, "errno", None) == number or f"errno = {number}," in text:
            reason = words
    return RunFailed(f"cannot write {path}: {reason}. {form.safe}")


def _sink(file: h5py.File) -> None:
    """Close a file whose disk refuses writes, leaving it as the last successful write left it.

    HDF5 tries to write the rest again when the file is closed and when the library ends, and crashes the process
    when that fails too (segmentation fault, seen with HDF5 2.0). /dev/null in place of the file takes those writes.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, file.id.get_vfd_handle(), inheritable=False)
        os.close(null)
        file.close()
