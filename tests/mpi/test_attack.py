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

SMALL = ("--attacks", "ridge,composition,gradient_norm", "--images", "8", "--quiet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("attacked") / "run"
    assert mocosfl("run", "smoke", "--out", out, "--quiet").returncode == 0
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def numbers(run) -> dict:
    """Rows without what is measured, by key."""
    return {one.key: dataclasses.replace(one, seconds=0.0, macs=0.0) for one in read_outcomes(run)}


def test_equal_numbers_for_any_number_of_ranks_and_nothing_is_done_twice(run, tmp_path):
    others = [shutil.copytree(run, tmp_path / f"run{ranks}") for ranks in (2, 3)]
    assert mocosfl("attack", run, *SMALL, "--seeds", "1").returncode == 0
    first = read_outcomes(run)
    assert mocosfl("attack", run, *SMALL, "--seeds", "2").returncode == 0
    assert read_outcomes(run)[: len(first)] == first  # the very same rows, with their seconds
    for ranks, other in zip((2, 3), others, strict=True):
        done = mocosfl("attack", other, *SMALL, "--seeds", "2", "-n", str(ranks))
        assert done.returncode == 0, done.stderr
        assert numbers(other) == numbers(run)
        assert {path.name: path.read_bytes() for path in (other / "attacks").iterdir()} == {
            path.name: path.read_bytes() for path in (run / "attacks").iterdir()
        }
    found = list(numbers(run).values())
    assert {one.attack for one in found if one.reason} == {"gradient_norm"}
    assert all("no labels" in one.reason for one in found if one.reason)
    assert {one.picture != "" for one in found if one.attack == "ridge"} == {True}


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
    after = read_outcomes(run)
    assert after[: len(before)] == before
    assert sorted(one.seed for one in after) == list(range(30))


def _rows(run) -> list:
    try:
        return read_outcomes(run)
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
    assert mocosfl(*words, "--require", "reconstruction.ssim<=1").returncode == 0


def test_wrong_commands_get_one_message(run, tmp_path):
    bare = shutil.copytree(run, tmp_path / "bare")
    shutil.rmtree(bare / "checkpoints")
    damaged = shutil.copytree(run, tmp_path / "damaged")
    (damaged / "attacks.h5").write_text("not HDF5")
    for words, message in (
        (("attack", run, "--attacks", "rigde"), "did you mean 'ridge'"),
        (("attack", run, "--attacks", "ridge", "--adversary", "wire"), "cannot mount ridge"),
        (("attack", run, "--attacks", "ridge", "--client", "99"), "choose 0 to"),
        (("audit", run, "--require", "reconstruction.ssim=0.3"), "expected KIND.METRIC"),
        (("attack", bare, "--attacks", "ridge", "-n", "2"), "no checkpoint to attack"),
        (("attack", damaged, "--attacks", "ridge"), "no HDF5 file"),
    ):
        done = mocosfl(*words)
        assert done.returncode == 2, done.stdout + done.stderr
        assert message in says_once(done.stderr)
