"""Ranks on three hosts: the same bits through a slow, lossy or interrupted network, and an end where it stays cut."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mocosfl_mpi.record.reader import open_run
from tests.cluster.faults import slowed
from tests.cluster.hosts import Hosts, why_not
from tests.cluster.slurm import ROOT
from tests.mpi.command import mocosfl

REASON = why_not()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(REASON), reason=REASON)]

SMOKE = ("run", "smoke", "--quiet", "--set", "method=monacosfl")
NETWORKS = {
    "fast": {},
    "slow": {"delay": 5.0, "jitter": 2.0},
    "lossy": {"delay": 1.0, "loss": 0.02},
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "one"
    done = mocosfl(*SMOKE, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def assert_equal(a, b):
    done = mocosfl("diff", a, b)
    assert done.returncode == 0, done.stdout + done.stderr


def epochs(out):
    if not (out / "run.h5").exists():
        return -1
    with open_run(out) as run:
        return len(run["epochs/loss"])


def wait_for_epochs(out, count, process):
    deadline = time.monotonic() + 60
    while epochs(out) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run never began"
        time.sleep(0.1)


def assert_all_gone(hosts, seconds):
    deadline = time.monotonic() + seconds
    while pids := hosts.pids():
        assert time.monotonic() < deadline, f"left behind: {pids}"
        time.sleep(0.2)


@pytest.mark.parametrize("network", NETWORKS)
def test_any_network_gives_the_same_bits(reference, tmp_path, network):
    with Hosts(3, **NETWORKS[network]) as hosts:
        _, said = (process := hosts.start(*SMOKE, "--out", tmp_path / "run")).communicate(timeout=120)
        assert process.returncode == 0, said
        assert_all_gone(hosts, 10)
        travelled = [hosts.received(number) for number in (1, 2, 3)]
    assert_equal(reference, tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        assert len(set(run["ranks/host"])) == 3
        sent = run["measured/mpi_bytes"].sum(axis=0)
    assert min(travelled) > 0.5 * min(sent), "the ranks talked past the network"


def test_an_interruption_of_seconds_costs_seconds(tmp_path):
    settings = (*SMOKE, "--set", "epochs=12", "--set", "evaluation.every=0")
    with Hosts(3) as hosts:
        process = hosts.start(
            *settings, "--out", tmp_path / "run", PYTHONPATH=f"{slowed(tmp_path / 'slow', 0.1)}:{ROOT}"
        )
        wait_for_epochs(tmp_path / "run", 1, process)
        hosts.toggle_partition()
        time.sleep(3)
        seen = epochs(tmp_path / "run")
        assert seen < 12, "the run was over before the interruption"
        assert process.poll() is None
        hosts.toggle_partition()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert_all_gone(hosts, 10)
    done = mocosfl(*settings, "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert_equal(tmp_path / "one", tmp_path / "run")


def test_a_lost_host_ends_the_run_once_patience_is_over(tmp_path):
    """MPI over TCP would wait for ever; every rank ends by itself, also on the host that nobody can reach.

    The launcher still waits for its helper over there, as launchers do, until it is told to end.
    """
    out = tmp_path / "run"
    with Hosts(3) as hosts:
        process = hosts.start(
            *SMOKE,
            *("--set", "epochs=2000", "--set", "evaluation.every=0"),
            "--out",
            out,
            *("--patience", str(8 / 60)),
        )
        wait_for_epochs(out, 2, process)
        hosts.toggle_partition()
        deadline = time.monotonic() + 40
        while hosts.ranks():
            assert time.monotonic() < deadline, f"left behind: {hosts.ranks()}"
            time.sleep(0.2)
        if process.poll() is None:
            process.terminate()
        _, said = process.communicate(timeout=30)
        assert process.returncode != 0
        assert "no word from the other ranks for 8 s" in said
        hosts.toggle_partition()
        assert_all_gone(hosts, 30)
    with open_run(out) as run:
        assert not run.summary()["completed"]
        assert len(run["epochs/loss"]) >= 2


def test_a_killed_rank_on_another_host_ends_all(tmp_path):
    out = tmp_path / "run"
    with Hosts(3) as hosts:
        process = hosts.start(*SMOKE, "--set", "epochs=2000", "--set", "evaluation.every=0", "--out", out)
        wait_for_epochs(out, 1, process)
        os.kill(max(hosts.ranks(2)), signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode != 0
        assert_all_gone(hosts, 20)
    assert epochs(out) >= 1
