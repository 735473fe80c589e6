"""`mocosfl attack` and `audit` on a small run: the same numbers on any number of ranks, nothing done twice."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import time

import pytest

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.attacks import read_outcomes
from tests.mpi.command import MOCOSFL, clean_environment, mocosfl, says_once

pytestmark = pytest.mark.mpi

SMALL = ("--attacks", "ridge,composition,gradient_norm", "--images", "8", "--seeds", "2", "--quiet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("attacked") / "run"
    assert mocosfl("run", "smoke", "--out", out, "--quiet").returncode == 0
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def rows(run) -> list:
    """All rows; NaN, which equals nothing, is set to 0."""
    return [dataclasses.replace(one, macs=0.0) for one in read_outcomes(run)]


def numbers(run) -> dict:
    """Rows without what is measured, by key."""
    return {one.key: dataclasses.replace(one, seconds=0.0) for one in rows(run)}


def test_equal_numbers_for_any_number_of_ranks(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    for directory, ranks in ((run, "1"), (other, "2")):
        done = mocosfl("attack", directory, *SMALL, "-n", ranks)
        assert done.returncode == 0, done.stderr
    assert numbers(other) == numbers(run)
    pictures = [{path.name: path.read_bytes() for path in (one / "attacks").iterdir()} for one in (run, other)]
    assert pictures[0] == pictures[1]
    found = list(numbers(run).values())
    assert {one.attack for one in found if one.reason} == {"gradient_norm"}
    assert all("no labels" in one.reason for one in found if one.reason)
    assert all(one.picture for one in found if one.attack == "ridge")


def test_a_killed_command_loses_only_what_was_at_work(run):
    words = ("attack", run, "--attacks", "ridge", "--images", "8", "--seeds", "30", "--trained")
    process = subprocess.Popen(
        [*MOCOSFL, *map(str, words)], env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(_rows(run)) < 3:
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = _rows(run)
    assert len(before) >= 3
    done = mocosfl(*words)
    assert done.returncode == 0, done.stderr
    assert f"{len(before)} of them recorded before" in done.stdout
    after = rows(run)
    assert after[: len(before)] == before
    assert sorted(one.seed for one in after) == list(range(30))


def _rows(run) -> list:
    try:
        return rows(run)
    except BadInput:  # just being created
        return []


def test_an_audit_says_whether_requirements_are_met(run):
    words = ("audit", run, "--attacks", "ridge", "--images", "8", "--seeds", "1", "-n", "2")
    done = mocosfl(*words, "--require", "reconstruction.ssim<=0.1", "--require", "utility.knn_top1>=1")
    assert done.returncode == 3, done.stderr
    assert done.stdout.count("not met: reconstruction.ssim<=0.1") == 1
    page = (run / "audit.html").read_text()
    assert "ridge" in page
    assert "NOT met" in page


def test_what_only_the_ranks_can_see_is_refused_once(run):
    (run / "attacks.h5").write_text("not HDF5")
    done = mocosfl("attack", run, "--attacks", "ridge", "-n", "2")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "attacks.h5 is no HDF5 file" in says_once(done.stderr)
    shutil.rmtree(run / "checkpoints")
    done = mocosfl("attack", run, "--attacks", "ridge", "-n", "2")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no checkpoint to attack" in says_once(done.stderr)
