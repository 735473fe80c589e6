"""Shared memory between the ranks of a node: the same rows as by messages, wherever ranks are and whatever is left."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mocosfl_mpi.launch import environment, find_mpiexec
from tests.mpi.command import clean_environment, processes

pytestmark = pytest.mark.mpi


NAMES = ("/dev/shm/mpich_shar", "/dev/shm/osc_sm")
"""How windows' memory is called while it is made: by MPICH, by Open MPI."""


def start(ranks, *cases):
    path, kind = find_mpiexec()
    return subprocess.run(
        [path, "-n", str(ranks), sys.executable, "-m", "tests.mpi.exchanges", *cases],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=Path(__file__).parents[2],
        env=environment(kind, clean_environment(), ranks=ranks),
    )


@pytest.mark.parametrize(
    ("ranks", "cases"), [(1, ("node",)), (2, ("node", "nodes")), (3, ("node", "small", "full")), (5, ("nodes", "node"))]
)
def test_rows_arrive_whole_and_what_windows_carry_is_no_message(ranks, cases):
    done = start(ranks, *cases)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split()[:2] for line in said] == [["done", case] for case in cases]
    for case, line in zip(cases, said, strict=True):
        assert ("not through shared memory" in line) == (case in ("small", "full"))


@pytest.mark.parametrize("case", ["ahead", "ahead-nodes"])
@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_the_server_answers_a_wave_before_the_next_is_computed(ranks, case):
    """If it waited for all, everybody would wait for ever."""
    done = start(ranks, case)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done", case]


@pytest.mark.parametrize("case", ["killed", "raised"])
def test_a_rank_lost_while_others_wait_in_a_window_ends_the_job(case):
    before = windows()
    done = start(3, case)
    assert done.returncode != 0
    if case == "raised":
        assert "ValueError: injected" in done.stderr
        assert "rank 2 of 3" in done.stderr
    deadline = time.monotonic() + 5
    while left := [*processes(f"tests.mpi.exchanges {case}"), *(windows() - before)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)


def windows():
    return {str(path) for path in Path("/dev/shm").iterdir() if str(path).startswith(NAMES)}
