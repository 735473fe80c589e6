"""The file system of the results, and data sets that are missing, damaged or not official."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import tempfile
from types import SimpleNamespace

import pytest

from mocosfl_mpi.doctor import storage
from mocosfl_mpi.doctor.finding import Patient
from mocosfl_mpi.record import trial
from tests.unit.data.files import write_cifar, write_idx
from tests.unit.data.test_cifar import check_md5


def room(free, files=9):
    return SimpleNamespace(f_bavail=free, f_frsize=1, f_files=10, f_favail=files)


def test_the_nearest_existing_directory_is_examined(tmp_path):
    patient = Patient(out=tmp_path / "not" / "yet" / "there")
    assert patient.directory == tmp_path
    for check in (storage.space, storage.locking, storage.reading_while_writing):
        assert check(patient).status == "ok", check(patient)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("status", "found"),
    [(room(1 << 40), "ok"), (room(1 << 30), "warning"), (room(1 << 20), "failure"), (room(1 << 40, 0), "failure")],
)
def test_space(tmp_path, monkeypatch, status, found):
    monkeypatch.setattr(os, "statvfs", lambda _: status)
    assert storage.space(Patient(out=tmp_path)).status == found


def refuse(*_args, **_more):
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    found = storage.space(Patient(out=tmp_path))
    assert (found.status, "Read-only" in found.text, "--out" in found.mend) == ("failure", True, True)


def test_file_systems_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)  # granted to everybody
    twice = storage.locking(Patient(out=tmp_path))
    assert (twice.status, "twice" in twice.text) == ("warning", True)
    monkeypatch.setattr(fcntl, "flock", refuse)
    refused = storage.locking(Patient(out=tmp_path))
    assert (refused.status, "HDF5_USE_FILE_LOCKING" in refused.mend) == ("warning", True)


@pytest.mark.parametrize(
    ("done", "reason"),
    [
        (SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nOSError: no SWMR here\n"), "no SWMR here"),
        (SimpleNamespace(returncode=0, stdout="1\n", stderr=""), "the reader saw '1' of 3 rows"),
        (subprocess.TimeoutExpired("python", 60), "did not finish"),
    ],
)
def test_files_that_cannot_be_read_while_written(tmp_path, monkeypatch, done, reason):
    def run(*_args, **_more):
        if isinstance(done, Exception):
            raise done
        return done

    monkeypatch.setattr(subprocess, "run", run)
    assert reason in trial.try_swmr(tmp_path)
    found = storage.reading_while_writing(Patient(out=tmp_path))
    assert found.status == "failure"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written(tmp_path):
    assert "writing failed" in trial.try_swmr(tmp_path / "none")


def look(source, folder):
    return storage.data_set(source, Patient(data_dir=folder))


def test_data_sets_that_nobody_has(tmp_path):
    assert look("cifar10", None).status == "ok"
    for source in ("cifar10", "cifar100", "fashion-mnist", "svhn"):
        found = look(source, tmp_path)
        assert (found.status, f"mocosfl download {source}" in found.text) == ("ok", True)
    assert look("cifar10", tmp_path / "none").status == "failure"


def test_fashion_mnist(tmp_path):
    write_idx(tmp_path, images=7)
    assert "7 training images" in look("fashion-mnist", tmp_path).text
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"x")
    damaged = look("fashion-mnist", tmp_path)
    assert (damaged.status, "download fashion-mnist" in damaged.mend) == ("failure", True)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert look("fashion-mnist", tmp_path).status == "failure"


def test_cifar(tmp_path, monkeypatch):
    place = write_cifar(tmp_path)
    cut = look("cifar10", tmp_path)
    assert (cut.status, "cut short" in cut.text) == ("failure", True)
    monkeypatch.setattr("mocosfl_mpi.data.check.CIFAR_IMAGE_BYTES", 1)
    other = look("cifar10", tmp_path)
    assert (other.status, "md5 differs" in other.text) == ("failure", True)
    release = storage.CIFAR["cifar10"]
    official = {
        "train": tuple(type(f)(f.name, check_md5(place / f.name), 12) for f in release.train),
        "test": tuple(type(f)(f.name, check_md5(place / f.name), 12) for f in release.test),
        "meta": type(release.meta)(release.meta.name, check_md5(place / release.meta.name), 0),
    }
    monkeypatch.setitem(storage.CIFAR, "cifar10", type(release)(**{**vars(release), **official}))
    assert look("cifar10", tmp_path).status == "ok"
    assert look("cifar10", place).status == "failure"  # the folder above is meant


def test_svhn(tmp_path, monkeypatch):
    monkeypatch.setattr("mocosfl_mpi.data.check.require_scipy", lambda: None)
    (tmp_path / "train_32x32.mat").write_bytes(b"x")
    assert look("svhn", tmp_path).status == "failure"  # half of it
    (tmp_path / "test_32x32.mat").write_bytes(b"x")
    assert look("svhn", tmp_path).status == "ok"
