"""Reading a run's file: finished, still being written, killed or damaged. Nothing in it is trusted or executed."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.form import Form
from mocosfl_mpi.record.integrity import (
    LARGEST_READ,
    attribute,
    check_stored,
    check_structure,
    damage,
    minor,
    read_attributes,
    require,
)
from mocosfl_mpi.record.schema import COMMITTED, RUN, present

if TYPE_CHECKING:
    import pandas as pd

_ATTEMPTS = 25
"""Reads of a piece of metadata, over 2^25 ns = 34 ms."""


class Record:
    """A file open for reading; ``record[name]`` is a dataset cut to its whole rows. Use ``open_record``."""

    form: ClassVar[Form]

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.path = path
        self._file = file
        self.rows: dict[str, int] = {}
        """Whole rows per growing dimension."""
        with self._damage():
            self.attrs = read_attributes(file, path, self.form)
            """Root attributes; ``config``, ``versions`` and ``notes`` are parsed from JSON."""
            self.names = present(self.attrs["config"], minor(self.attrs["schema_version"]), self.form)
            """Datasets that a file of this schema version and configuration has."""
            self._series = check_structure(file, self.names, self.attrs["config"], self.form)
        self.refresh()
        for name in self.names:
            self._dataset(name)

    def refresh(self) -> None:
        """Look again at a file that is being written: ``rows`` grows."""
        with self._damage():
            counter = self._file[COMMITTED]
            if self._file.swmr_mode:
                counter.id.refresh()
            counts = np.asarray(counter[...]).tolist()
        self.rows = dict(zip(self._series, counts, strict=True))

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """The dataset or scale ``name``: numbers as stored, texts as Python strings (dtype object).

        Raises
        ------
        KeyError
            The schema has no such name.
        BadInput
            The file is damaged there, or the dataset is larger than 2 GiB.
        """
        dataset, rows = self._dataset(name)
        size = dataset.nbytes if rows is None else math.prod(dataset.shape[1:]) * rows * dataset.dtype.itemsize
        if size > LARGEST_READ:
            raise BadInput(f"{self.path}: {name} has {size} bytes; read it in parts with h5py")
        with self._damage():
            if dataset.dtype.kind == "S":
                return np.asarray(dataset.asstr()[()] if rows is None else dataset.asstr()[:rows], dtype=object)
            return np.asarray(dataset[()] if rows is None else dataset[:rows])

    def stored(self, name: str) -> npt.NDArray[Any]:
        """A dataset that does not grow, as stored: texts stay bytes."""
        dataset, _ = self._dataset(name)
        with self._damage():
            return np.asarray(dataset[()])

    def raw_attribute(self, name: str) -> str | int:
        """A root attribute as stored, JSON unparsed."""
        with self._damage():
            return attribute(self._file, name, self.form)  # type: ignore[no-any-return]

    def part(self, name: str, start: int, end: int) -> npt.NDArray[Any]:
        """Rows ``start`` to ``end`` of a growing dataset, as stored."""
        dataset, _ = self._dataset(name)
        with self._damage():
            return np.asarray(dataset[start:end])

    def last(self, name: str) -> npt.NDArray[Any] | None:
        """The last row of a growing dataset, or None where there is none yet."""
        dataset, rows = self._dataset(name)
        if not rows:
            return None
        with self._damage():
            return np.asarray(dataset[rows - 1])

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _damage(self) -> AbstractContextManager[None]:
        return damage(self.path, self.form.what)

    def _dataset(self, name: str) -> tuple[h5py.Dataset, int | None]:
        """The dataset and its whole rows (None = it does not grow), all of them in the file."""
        if name not in self.names:
            raise KeyError(name)
        entry = self.form.entries.get(name)
        growing = entry.growing if entry else (name if name in self.form.growing else None)
        with self._damage():
            dataset = self._file[name]
            if self._file.swmr_mode:
                dataset.id.refresh()
            rows = None if growing is None else self.rows[growing]
            require(
                rows is None or 0 <= rows <= dataset.shape[0], f"{name} has {dataset.shape[:1]} rows instead of {rows}"
            )
            check_stored(dataset, rows, self.path.stat().st_size)
        return dataset, rows


class Run(Record):
    """A run's file, open for reading. Use ``open_run``."""

    form = RUN

    def result(self, name: str) -> float | None:
        """The number ``result/NAME``, or None where it is not known (yet)."""
        value = float(self[f"result/{name}"])
        return value if math.isfinite(value) else None

    @property
    def completed(self) -> bool:
        """Whether the run reached its normal end."""
        return int(self["result/completed"]) == 1

    @property
    def left_open(self) -> bool:
        """Whether its writer has not closed the file, because it is at work, or was killed."""
        return bool(self._file.swmr_mode)

    @property
    def state_sha256(self) -> str | None:
        """Hash of all trained state; None for a run that is not completed."""
        return (str(self["result/state_sha256"]) or None) if self.completed else None

    def summary(self) -> dict[str, Any]:
        """What ``mocosfl inspect --json`` prints, ready for JSON; every key is explained in ``record.summary``."""
        from mocosfl_mpi.record.summary import summarise

        return summarise(self)

    def frame(self, name: str = "evaluation") -> pd.DataFrame:
        """A pandas table of what was recorded; ``attrs["units"]`` of it holds the unit of each column.

        Parameters
        ----------
        name
            ``step``, ``sync``, ``epoch``, ``evaluation`` or ``session``: a row for each, counted from 0, and a column
            for every dataset that has one number for each. Or a dataset's name: its numbers in one column, by its
            axes: ``frame("simulated/bytes")["bytes"].unstack("message")``.

        Raises
        ------
        BadInput
            pandas is not installed, or there is no such table (those that there are, are listed).
        """
        from mocosfl_mpi.record.frames import frame

        return frame(self, name)

    def curves(self) -> pd.DataFrame:
        """A pandas table with a row for every look at the encoder, by epochs completed (0 = untrained).

        Columns: ``knn_top1``, ``knn_projector_top1``, with labels ``classifier_top1`` (% of the test images; of a
        completed run the last row holds its results); ``loss``, ``accuracy`` (%), ``feature_std``, ``effective_rank``
        of the epoch before the look, NaN before the first; ``client_bytes``: sent and received so far by a simulated
        client, mean over all. Units stand in ``attrs["units"]``.

        Raises
        ------
        BadInput
            pandas is not installed.
        """
        from mocosfl_mpi.record.frames import curves

        return curves(self)

    def __repr__(self) -> str:
        state = "completed" if self.completed else "not completed"
        done = f"{self.rows['epoch']} of {self.attrs['config'].get('epochs')} epochs, {state}"
        accuracy = self.result("knn_top1")
        return f"<Run {self.path}: {self.attrs['method']}, {done}{f', kNN {accuracy:.1f} %' if accuracy else ''}>"


def open_run(path: str | os.PathLike[str], *, locks: bool = True) -> Run:
    """Open a run's file, or the ``run.h5`` in a directory; works while the run writes and after a kill.

    ``locks``: False takes no lock of HDF5's at all, not even one to share; not for a file that this process writes.

    Raises
    ------
    BadInput
        No such file, not HDF5, cut or damaged, another schema or another major version of it.
    """
    return open_record(path, Run, locks=locks)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def open_record(path: str | os.PathLike[str], kind: type[AnyRecord], *, locks: bool = True) -> AnyRecord:
    """Open a file of that ``kind``, or the one of its usual name in a directory. Raises what ``open_run`` does."""
    form = kind.form
    path = Path(path)
    try:
        file_path = path / form.file_name if path.is_dir() else path
        exists = file_path.is_file()
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    if not exists:
        raise BadInput(f"no {form.what} at {path}: expected a run's directory, or the {form.file_name} in it")
    file = _open(file_path, form, locks=locks)
    try:
        return kind(file, file_path)
    except BaseException:
        with contextlib.suppress(OSError, RuntimeError):
            file.close()
        raise


def _open(path: Path, form: Form, *, locks: bool) -> h5py.File:
    with damage(path, form.what):
        if not h5py.is_hdf5(path):
            raise BadInput(
                f"{path} is no HDF5 file, or its beginning is damaged; expected the {form.file_name} of a run"
            )
        try:
            return h5py.File(path, "r", locking="best-effort" if locks else False)
        except OSError:
            # Still being written, or the writer was killed: HDF5 then insists on SWMR mode.
            return _open_swmr(path, locks=locks)


def _open_swmr(path: Path, *, locks: bool) -> h5py.File:
    """Open in SWMR mode, which reads metadata with a wrong checksum again: it may just be being written.

    By default HDF5 does so 100 times and doubles its pause from 1 ns on, so that a damaged file sleeps for ever.
    h5py does not wrap the number, hence the call by hand.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_file_locking(locks, True)
    with contextlib.suppress(AttributeError, OSError):  # an h5py linked in another way: only damaged files suffer
        set_attempts = ctypes.CDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts
        set_attempts(ctypes.c_int64(access.id), ctypes.c_uint(_ATTEMPTS))
    flags = h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ
    return h5py.File(h5py.h5f.open(os.fsencode(path), flags, fapl=access))


def differences(a: Run, b: Run) -> str | None:
    """The first difference between two runs' configurations or trained states; None = the same experiment.

    A run that is not completed has no trained state to compare, which is a difference in itself.
    """
    difference = _first_difference("", a.attrs["config"], b.attrs["config"])
    if difference:
        return difference
    for run in (a, b):
        if run.state_sha256 is None:
            return f"{run.path} is not completed: it has no final state to compare"
    if a.state_sha256 != b.state_sha256:
        return f"state_sha256: {a.state_sha256} in {a.path}, {b.state_sha256} in {b.path}"
    return None


def _first_difference(name: str, a: Any, b: Any) -> str | None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            found = _first_difference(f"{name}.{key}".lstrip("."), a.get(key), b.get(key))
            if found:
                return found
        return None
    return None if a == b and type(a) is type(b) else f"{name}: {a!r} in the first run, {b!r} in the second"
