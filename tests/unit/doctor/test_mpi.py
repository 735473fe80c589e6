"""What the doctor says of MPI, with jobs that other tests cannot count on: none, mismatched, hanging, bound."""

from __future__ import annotations

import os
import sys

import pytest

from mocosfl_mpi.doctor import mpi, start
from mocosfl_mpi.doctor.finding import Patient
from mocosfl_mpi.doctor.start import Start
from mocosfl_mpi.errors import BadInput

CPUS = sorted(os.sched_getaffinity(0))


def report(rank, size, library="MPICH Version: 5", cpus=None, host="node1"):
    return {"rank": rank, "size": size, "host": host, "cpus": CPUS if cpus is None else cpus, "library": library}


def patient(*jobs, ranks=2):
    return Patient(ranks=ranks, starts={len(job.reports) or 2: job for job in jobs})


def alone(library="MPICH Version: 5"):
    return Start([report(0, 1, library)])


def pair(**changes):
    return Start([report(0, 2, **changes), report(1, 2, **changes)])


def test_all_is_well():
    ready = patient(alone(), pair())
    for check in (mpi.library, mpi.ranks_start, mpi.slots, mpi.binding):
        assert check(ready).status == "ok", check
    assert "MPICH Version: 5" in mpi.library(ready).text


def test_no_library():
    found = mpi.library(Patient(starts={1: Start([], "MPI cannot be loaded")}))
    assert found.status == "failure"
    assert "MPI cannot be loaded" in found.text
    assert "pip install" in found.mend


def no_mpiexec():
    raise BadInput("no mpiexec found")


def test_no_launcher(monkeypatch):
    monkeypatch.setattr(mpi, "find_mpiexec", no_mpiexec)
    assert mpi.launcher(patient(alone())).status == "failure"
    assert mpi.launcher(patient(alone(), ranks=1)).status == "warning"  # one rank needs none
    assert mpi.ranks_start(patient(alone(), ranks=1)).status == "ok"
    monkeypatch.setattr(start, "find_mpiexec", no_mpiexec)
    found = mpi.ranks_start(Patient())
    assert found.status == "failure"
    assert "no mpiexec found" in found.text


@pytest.mark.parametrize(
    ("kind", "library", "status"),
    [
        ("openmpi", "Open MPI v5.0.1", "ok"),
        ("other", "MPICH Version: 5", "ok"),
        ("other", "Intel(R) MPI Library 2021", "ok"),
        ("openmpi", "MPICH Version: 5", "failure"),
        ("other", "Open MPI v5.0.1", "failure"),
    ],
)
def test_a_launcher_of_another_family(monkeypatch, kind, library, status):
    monkeypatch.setattr(mpi, "find_mpiexec", lambda: ("/x/mpiexec", kind))
    found = mpi.launcher(patient(alone(library)))
    assert found.status == status
    assert "/x/mpiexec" in found.text


@pytest.mark.parametrize("reports", [[report(0, 1), report(0, 1)], [report(0, 2)], []])
def test_ranks_that_do_not_see_each_other(reports):
    found = mpi.ranks_start(Patient(starts={2: Start(reports)}))
    assert found.status == "failure"
    assert "do not match" in found.text
    assert "srun" in found.mend


def test_too_few_slots():
    found = mpi.slots(Patient(ranks=9, starts={9: Start([], "exit code 1: not enough slots")}))
    assert found.status == "failure"
    assert "9 ranks do not start" in found.text
    assert "9 tasks" in found.mend


def test_bound_ranks(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    found = mpi.binding(patient(pair(cpus=[0])))
    assert found.status == "warning"
    assert "1 of 8" in found.text
    assert "--bind-to none" in found.mend
    assert mpi.binding(patient(pair(cpus=list(range(8))))).status == "ok"
    assert mpi.binding(Patient(starts={2: Start([], "x")})).status == "warning"


def probe(monkeypatch, tmp_path, script):
    """Let ``script`` stand for mpiexec."""
    path = tmp_path / "mpiexec"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o700)
    monkeypatch.setattr(start, "find_mpiexec", lambda: (str(path), "other"))


def test_a_job_that_hangs_is_given_up(monkeypatch, tmp_path):
    probe(monkeypatch, tmp_path, "import time\ntime.sleep(1000)")
    assert start.start(2, timeout=0.5).problem == "2 ranks did not end within 0.5 s"


def test_a_job_that_fails_tells_why(monkeypatch, tmp_path):
    script = "import sys\nprint('-' * 9, '\\nThere are not enough slots', file=sys.stderr)\nsys.exit(3)"
    probe(monkeypatch, tmp_path, script)
    assert start.start(2).problem == "exit code 3: There are not enough slots"


def test_greetings_are_no_reports(monkeypatch, tmp_path):
    lines = "print('welcome')\nprint('[1]')\nprint('{}')\n"
    rows = "import json\n" + "".join(f"print(json.dumps({report(rank, 2)!r}))\n" for rank in (1, 0))
    probe(monkeypatch, tmp_path, lines + rows)
    assert start.start(2) == Start([report(0, 2), report(1, 2)])


@pytest.mark.mpi
def test_real_ranks_meet():
    for ranks in (1, 2):
        job = start.start(ranks)
        assert not job.problem
        assert [(r["rank"], r["size"]) for r in job.reports] == [(rank, ranks) for rank in range(ranks)]


def test_without_a_library_the_probe_says_so(tmp_path, monkeypatch):
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('no libmpi')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    job = start.start(1)
    assert job.reports == []
    assert "MPI cannot be loaded (no libmpi)" in job.problem
