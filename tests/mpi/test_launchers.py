"""The same program under `mocosfl run -n`, under a launcher of the user's, and alone."""

from __future__ import annotations

import subprocess

import pytest

from mocosfl_mpi.launch import find_mpiexec
from tests.mpi.command import MOCOSFL, TIMEOUT, clean_environment, mocosfl

pytestmark = pytest.mark.mpi


def under_mpiexec(ranks, *arguments):
    path, kind = find_mpiexec()
    allow = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if kind == "openmpi" else {}
    return subprocess.run(
        [path, "-n", str(ranks), *MOCOSFL, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env=clean_environment(**allow),
    )


def test_mpiexec_and_the_own_launcher_give_the_same_bits(tmp_path):
    done = under_mpiexec(2, "run", "smoke", "--out", tmp_path / "theirs", "--quiet")
    assert done.returncode == 0, done.stderr
    assert mocosfl("run", "smoke", "-n", "2", "--out", tmp_path / "ours", "--quiet").returncode == 0
    assert mocosfl("diff", tmp_path / "ours", tmp_path / "theirs").returncode == 0


def test_another_number_of_ranks_inside_a_launcher_is_refused_once(tmp_path):
    done = under_mpiexec(2, "run", "smoke", "-n", "3", "--out", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("leave -n out") == 1


def test_what_a_person_reads(tmp_path):
    """The first line shows the thread budget; the end shows the table with untrained network and raw pixels."""
    done = mocosfl("run", "smoke", "-n", "2", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert "2 ranks" in first
    assert "thread" in first
    text = "\n".join(rest)
    for word in ("untrained", "raw pixels", "linear probe", "remaining", "run.h5"):
        assert word in text, word


def test_without_a_compiler_torch_computes_and_says_so(tmp_path):
    done = mocosfl(
        "run", "smoke", "-n", "3", "--out", tmp_path / "run", CXX="none", MOCOSFL_CACHE=str(tmp_path / "cache")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("No compiled kernels (no C++ compiler found (none)); torch computes instead") == 1
    assert "fp32, stacked backend" in done.stdout
