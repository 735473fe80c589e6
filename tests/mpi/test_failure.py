"""Faults injected for real: a rank that raises, kill -9, NaN, a full disk. No hang, nothing flushed is lost."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mocosfl_mpi.record.reader import open_run
from tests.mpi.command import MOCOSFL, clean_environment, mocosfl, processes

pytestmark = pytest.mark.mpi

RAISE = """
import os
if os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")) == "{rank}":
    import importlib.abc, sys, threading
    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "mocosfl_mpi.routes":
                from mocosfl_mpi.clients.population import Population
                def fault(*_):
                    {fault}
                def forward(self, *_):
                    if {thread}:
                        threading.Thread(target=fault, name="helper").start()
                        threading.Event().wait()
                    fault()
                Population.forward = forward
            return None
    sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(("ranks", "rank", "thread"), [(1, 0, False), (3, 0, False), (3, 2, False), (3, 1, True)])
def test_a_rank_that_raises_ends_the_job(tmp_path, ranks, rank, thread):
    (tmp_path / "sitecustomize.py").write_text(
        RAISE.format(rank=rank, thread=thread, fault='raise ValueError("injected")')
    )
    start = time.monotonic()
    done = mocosfl("run", "smoke", "-n", str(ranks), "--out", tmp_path / "run", timeout=60, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert time.monotonic() - start < 40
    assert "ValueError: injected" in done.stderr
    assert f"rank {rank} of {ranks}" in done.stderr
    deadline = time.monotonic() + 5
    while processes(str(tmp_path / "run")):
        assert time.monotonic() < deadline, f"left behind: {processes(str(tmp_path / 'run'))}"
        time.sleep(0.05)


def test_a_rank_that_crashes_says_where(tmp_path):
    crash = f"os.kill(os.getpid(), {int(signal.SIGSEGV)})"
    (tmp_path / "sitecustomize.py").write_text(RAISE.format(rank=1, thread=False, fault=crash))
    done = mocosfl("run", "smoke", "-n", "3", "--out", tmp_path / "run", timeout=60, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "in gradient_at_cut" in done.stderr or "in train" in done.stderr


def test_nan_loss_is_named_and_earlier_rows_stay(tmp_path):
    out = tmp_path / "run"
    done = mocosfl("run", "smoke", "-n", "2", "--out", out, "--set", "server.lr=1e38", "--set", "client.lr=1e38")
    assert done.returncode == 1, done.stderr
    assert "loss became" in done.stderr
    assert "server.lr" in done.stderr
    with open_run(out) as run:
        assert not run.summary()["completed"]
        assert len(run["steps/loss"]) >= 1


def test_full_disk(tmp_path):
    """Once the run has begun its file may grow by 100 kB only: the write fails inside HDF5, as on a full disk."""
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*MOCOSFL, "run", "smoke", "--out", str(out), "--set", "epochs=2000", "--set", "evaluation.every=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    try:
        wait_for_file(out)
        while epochs_on_file(out) < 3:
            assert process.poll() is None
            time.sleep(0.1)
        limit = (out / "run.h5").stat().st_size + 100_000
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1, said
    assert str(out) in said
    assert "Traceback" not in said
    assert epochs_on_file(out) >= 3


def epochs_on_file(out):
    with open_run(out) as run:
        return len(run["epochs/loss"])


def wait_for_file(out):
    deadline = time.monotonic() + 60
    while not (out / "run.h5").exists():
        assert time.monotonic() < deadline, "the run never began"
        time.sleep(0.05)


def kill_once(out, generator, ranks=3):
    """Start a run, kill -9 the launcher or a rank at a random moment; seconds until everything is gone."""
    launcher = subprocess.Popen(
        [*MOCOSFL, "run", "smoke", "-n", str(ranks), "--out", str(out), "--set", "epochs=2000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
    )
    try:
        wait_for_file(out)
        time.sleep(generator.uniform(0.0, 3.0))
        alive = sorted(pid for pid, line in processes(str(out)) if "-m mocosfl_mpi" in line)
        ranks_alive = [pid for pid in alive if pid != launcher.pid and _is_rank(pid)]
        victim = launcher.pid if generator.random() < 0.3 else generator.choice(ranks_alive)
        os.kill(victim, signal.SIGKILL)
        start = time.monotonic()
        while processes(str(out)):
            launcher.poll()
            assert time.monotonic() - start < 20, f"left behind: {processes(str(out))}"
            time.sleep(0.05)
        assert launcher.wait(timeout=20) != 0
        return time.monotonic() - start
    finally:
        for pid, _ in processes(str(out)):
            os.kill(pid, signal.SIGKILL)
        launcher.wait(timeout=20)


def _is_rank(pid):
    names = [item.partition(b"=")[0] for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
    return b"PMI_RANK" in names or b"OMPI_COMM_WORLD_RANK" in names


def check_rows(out):
    with open_run(out) as run:
        summary = run.summary()
        assert not summary["completed"]
        epochs = len(run["epochs/loss"])
        assert len(run["syncs/epoch"]) >= 2 * epochs
        assert len(run["steps/loss"]) >= 4 * epochs
    return epochs


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_9_leaves_no_process_and_every_flushed_row(tmp_path, seed):
    kill_once(tmp_path / "run", random.Random(seed))
    check_rows(tmp_path / "run")


@pytest.mark.slow
def test_kill_9_twenty_times(tmp_path):
    generator = random.Random(20)
    seconds, epochs = [], []
    for number in range(20):
        seconds.append(kill_once(tmp_path / str(number), generator))
        epochs.append(check_rows(tmp_path / str(number)))
    print(f"20 kills: all gone after at most {max(seconds):.2f} s; epochs on file {min(epochs)} to {max(epochs)}")
    assert max(epochs) > 0
