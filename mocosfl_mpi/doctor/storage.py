"""The output directory's file system, and the data sets."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path

from mocosfl_mpi.config import Data
from mocosfl_mpi.data.check import CIFAR, IDX_FOLDERS, IDX_NAMES, SVHN_FILES, check
from mocosfl_mpi.doctor.finding import Finding, Patient, failure, ok, warning
from mocosfl_mpi.errors import BadInput

_LITTLE, _NEXT_TO_NOTHING = 2 << 30, 64 << 20  # bytes


def space(patient: Patient) -> Finding:
    """Can results be written, and is there room for them?"""
    place = patient.directory
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        return failure(f"cannot write to {place}: {error.strerror}", "name another directory with --out")
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    if free < _NEXT_TO_NOTHING or (status.f_files and not status.f_favail):
        return failure(
            f"{place}: {free / 2**20:.0f} MiB and {status.f_favail} files free", "make room, or another --out"
        )
    if free < _LITTLE:
        return warning(f"{place}: {free / 2**20:.0f} MiB free", "drift of many clients takes gigabytes: make room")
    return ok(f"{place}: writable, {free / 2**30:.1f} GiB free")


def locking(patient: Patient) -> Finding:
    """Do file locks work there? HDF5 takes them."""
    mend = "set HDF5_USE_FILE_LOCKING=FALSE, or results on another file system"
    place = patient.directory
    with tempfile.NamedTemporaryFile(dir=place) as first, Path(first.name).open("rb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return warning(f"{place} refuses file locks ({error.strerror})", mend)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return ok(f"{place}: a lock keeps others out")
    return warning(f"{place} grants the same lock twice", mend)


def reading_while_writing(patient: Patient) -> Finding:
    """Can a second process read a run's file while it is written (HDF5 SWMR)?"""
    from mocosfl_mpi.record.trial import try_swmr

    problem = try_swmr(patient.directory)
    if problem:
        return failure(
            f"{patient.directory}: a run's file cannot be read while it is written: {problem}",
            "set HDF5_USE_FILE_LOCKING=FALSE, or results on a file system with POSIX writes (not NFS, not FUSE)",
        )
    return ok(f"{patient.directory}: a second process reads while the first one writes")


def data_set(source: str, patient: Patient) -> Finding:
    """Is the data set there, whole and the official one?"""
    folder = patient.data_dir
    if folder is None:
        return ok("not looked for: no --data-dir, no MOCOSFL_DATA; the embedded images need none")
    if not folder.is_dir():
        return failure(f"the data directory {folder} does not exist", "correct --data-dir or MOCOSFL_DATA")
    fetch = f"`mocosfl download {source} --data-dir {folder}`"
    if not _anything(source, folder):
        return ok(f"not in {folder}; {fetch} fetches it")
    try:
        check(Data.model_validate({"source": source}), folder)
        return _content(source, folder, fetch)
    except BadInput as error:
        return failure(str(error), f"remove its files and run {fetch}")


def _content(source: str, folder: Path, fetch: str) -> Finding:
    if source == "fashion-mnist":
        from mocosfl_mpi.data.idx import load_fashion_mnist

        return ok(f"{len(load_fashion_mnist(folder).train):,} training images in {folder}")
    if source not in CIFAR:
        return ok(f"its files lie in {folder}; it has no published checksums")
    release = CIFAR[source]
    odd = []
    for file in (*release.train, *release.test, release.meta):
        with (folder / release.folder / file.name).open("rb") as content:
            digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        odd += [file.name] if digest != file.md5 else []
    if odd:
        return failure(
            f"{folder / release.folder}: not the official files (md5 differs): {', '.join(odd)}",
            f"{fetch}, or data.allow_unofficial = true if you trust them",
        )
    return ok(f"the official files (md5) in {folder / release.folder}")


def _anything(source: str, folder: Path) -> bool:
    if source in CIFAR:
        release = CIFAR[source]
        names = [file.name for file in (*release.train, *release.test, release.meta)]
        places = [folder / release.folder / name for name in names] + [folder / release.train[0].name]
    elif source == "fashion-mnist":
        places = [folder / inner / f"{name}{end}" for inner in IDX_FOLDERS for name in IDX_NAMES for end in ("", ".gz")]
    else:
        places = [folder / name for name in SVHN_FILES]
    return any(path.exists() for path in places)
