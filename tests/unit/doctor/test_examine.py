"""Software, the report, and one real examination from the command line."""

from __future__ import annotations

import json
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

import mocosfl_mpi.native
from mocosfl_mpi.cli import main
from mocosfl_mpi.doctor import examine as module
from mocosfl_mpi.doctor import software
from mocosfl_mpi.doctor.examine import CHECKS, examine, line
from mocosfl_mpi.doctor.finding import Finding, Patient, failure, ok, warning
from mocosfl_mpi.native import NoKernelsError


def no_kernels():
    raise NoKernelsError("no C++ compiler found")


def test_kernels(monkeypatch):
    monkeypatch.setattr(mocosfl_mpi.native, "load", no_kernels)
    found = software.kernels(Patient())
    assert (found.status, "no C++ compiler found" in found.text) == ("warning", True)
    monkeypatch.setattr(mocosfl_mpi.native, "load", lambda: SimpleNamespace(convolves=()))
    assert "AVX-512" in software.kernels(Patient()).text
    monkeypatch.setattr(mocosfl_mpi.native, "load", lambda: SimpleNamespace(convolves=(torch.float32,)))
    assert software.kernels(Patient()) == ok("compiled and compared with torch; convolutions in float32")


def test_accelerator(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert software.accelerator(Patient()).status == "ok"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    assert "Some GPU" in software.accelerator(Patient()).text


def test_versions(monkeypatch, tmp_path):
    tested = tmp_path / "constraints.txt"
    tested.write_text("# tested\nnumpy==2.4.6\nh5py==3.16.0\n")
    monkeypatch.setattr(software, "TESTED", tested)
    monkeypatch.setattr(metadata, "version", lambda name: {"numpy": "2.9", "h5py": "3.0"}.get(name, "1"))
    assert software.versions(Patient()).status == "ok"  # minor versions may differ
    monkeypatch.setattr(metadata, "version", lambda name: {"numpy": "3.0", "h5py": "3.0"}.get(name, "1"))
    found = software.versions(Patient())
    assert (found.status, "numpy 3.0 (tested: 2.4.6)" in found.text) == ("warning", True)
    monkeypatch.setattr(software, "TESTED", tmp_path / "none")
    assert "not known" in software.versions(Patient()).text

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert software.versions(Patient()).status == "failure"


def test_a_check_that_fails_itself_is_a_failure_of_that_check():
    def broken(_):
        raise ZeroDivisionError("division\nby zero")

    findings = dict(examine(Patient(), {"one": broken, "two": lambda _: ok("fine")}))
    assert findings["one"].status == "failure"
    assert "ZeroDivisionError: division by zero" in findings["one"].text
    assert findings["two"] == ok("fine")


def test_one_line_each():
    assert line("limits", ok("a\nb")).plain == "OK      limits: a b"
    assert line("limits", warning("a", "b")).plain == "warning limits: a; to mend: b"
    assert line("limits", failure("a", "b")).plain == "FAILURE limits: a; to mend: b"


@pytest.mark.parametrize(("found", "code"), [(ok("x"), 0), (warning("x", "y"), 0), (failure("x", "y"), 1)])
def test_exit_codes(monkeypatch, capsys, found: Finding, code):
    monkeypatch.setattr(module, "CHECKS", {"one": lambda _: found})
    assert main(["doctor"]) == code
    assert "one: x" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == {"one": {"status": found.status, "text": "x", "mend": found.mend}}


def test_bad_arguments(monkeypatch, capsys):
    assert main(["doctor", "-n", "0"]) == 2
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    assert main(["doctor"]) == 2
    assert "starts ranks itself" in capsys.readouterr().err


@pytest.mark.mpi
def test_this_machine(tmp_path, capsys, monkeypatch):
    """Where these tests run, a run can run: no failure, and a line for everything."""
    monkeypatch.delenv("MOCOSFL_DATA", raising=False)
    assert main(["doctor", "--out", str(tmp_path / "new"), "-n", "3", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings.keys() == CHECKS.keys()
    assert "3 ranks" in findings["your ranks"]["text"]
    assert not (tmp_path / "new").exists()
