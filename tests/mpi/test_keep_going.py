"""A rank dies, any rank, and the others go on to the same bits: Open MPI with ULFM."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from mocosfl_mpi.launch import find_mpiexec, survives_losses
from mocosfl_mpi.record.reader import open_run
from tests.mpi.command import MOCOSFL, clean_environment, mocosfl, processes
from tests.mpi.test_resume import wait_for

pytestmark = pytest.mark.mpi

SETTINGS = ("run", "smoke", "--set", "epochs=20", "--set", "evaluation.every=10")


ULFM = survives_losses(find_mpiexec()[0])
with_ulfm = pytest.mark.skipif(not ULFM, reason="no Open MPI 5")
without_ulfm = pytest.mark.skipif(ULFM, reason="this is Open MPI 5")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "run"
    assert mocosfl(*SETTINGS, "--out", out).returncode == 0
    with open_run(out) as run:
        return run.state_sha256


def rank_of(pid):
    for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        name, _, value = item.partition(b"=")
        if name == b"OMPI_COMM_WORLD_RANK":
            return int(value)
    return None


def saved(out):
    """Steps in the newest checkpoint."""
    return max((int(path.name.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*")), default=0)


def lose(out, victims, after):
    """A run of four ranks that loses ``victims`` after so many steps; what it said."""
    process = subprocess.Popen(
        [*MOCOSFL, *SETTINGS, "-n", "4", "--keep-going", "--checkpoint-every", "3steps", "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    for victim, steps in zip(victims, after, strict=True):
        wait_for(lambda: saved(out) >= steps, process, seconds=120.0)  # noqa: B023 - called before the next turn
        ranks = {rank_of(pid): pid for pid, line in processes(str(out)) if "-m mocosfl_mpi" in line}
        os.kill(ranks[victim], signal.SIGKILL)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert said.count("1 of 4 ranks died at epoch") == 1, said
    assert "going on with 3 from the newest checkpoint" in said
    return said


@with_ulfm
@pytest.mark.parametrize("victim", [0, 2])
def test_the_others_go_on_to_the_same_bits(tmp_path, expected, victim):
    lose(tmp_path / "run", [victim], [6])
    with open_run(tmp_path / "run") as run:
        assert run.state_sha256 == expected
        assert run["sessions/ranks"].tolist() == [4, 3]
        assert run["step"].tolist() == list(range(80))


@with_ulfm
def test_no_loss_at_all(tmp_path, expected):
    done = mocosfl(*SETTINGS, "-n", "3", "--keep-going", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    with open_run(tmp_path / "run") as run:
        assert run.state_sha256 == expected


@with_ulfm
def test_two_losses(tmp_path, expected):
    said = lose(tmp_path / "run", [3, 1], [6, 30])
    assert "1 of 3 ranks died at epoch" in said
    with open_run(tmp_path / "run") as run:
        assert run.state_sha256 == expected
        assert run["sessions/ranks"].tolist() == [4, 3, 2]


@pytest.mark.slow
@with_ulfm
def test_ten_losses(tmp_path, expected):
    generator = random.Random(10)
    for number in range(10):
        victim, steps = generator.choice([1, 2, 3]), 3 * generator.randrange(1, 20)
        said = lose(tmp_path / str(number), [victim], [steps])
        with open_run(tmp_path / str(number)) as run:
            assert run.state_sha256 == expected
        line = next(line for line in said.splitlines() if "ranks died" in line)
        print(f"{number + 1:2d}  rank {victim} killed: {line}; same bits", flush=True)


@without_ulfm
def test_another_mpi_is_refused(tmp_path):
    done = mocosfl("run", "smoke", "-n", "2", "--keep-going", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith("mocosfl: --keep-going needs Open MPI 5")
    assert done.stderr.count("\n") == 1
