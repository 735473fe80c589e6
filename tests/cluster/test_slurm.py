"""The job scripts and `mocosfl slurm` in a real SLURM: completion, arrays, time limits, cancellation, failure."""

from __future__ import annotations

import time

import pytest

from mocosfl_mpi.launch import find_mpiexec
from mocosfl_mpi.record.reader import open_run
from tests.cluster.faults import failing, slowed, starting_slowly
from tests.cluster.slurm import ROOT, Slurm, why_not
from tests.mpi.command import mocosfl, processes

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(why_not()), reason=why_not())]

JOBS = ROOT / "jobs"
OPEN_MPI = not why_not() and find_mpiexec()[1] == "openmpi"
SRUN = "pmix" if OPEN_MPI else "pmi2"
LONG = ("--set", "epochs=30", "--set", "evaluation.every=0")
"""120 steps; slowed by 0.25 s each they outlast 25 s, when SLURM warns, on any machine."""


@pytest.fixture(scope="module")
def slurm():
    with Slurm(2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("reference") / "smoke")


def finished(out, *settings):
    done = mocosfl("run", "smoke", "--out", out, "--quiet", *settings)
    assert done.returncode == 0, done.stderr
    return out


def assert_equal(a, b):
    done = mocosfl("diff", a, b)
    assert done.returncode == 0, done.stdout + done.stderr


def log(folder, number):
    return (folder / f"mocosfl-{number}.log").read_text()


def test_one_node(slurm, reference, tmp_path):
    number = slurm.submit("-n3", JOBS / "one_node.sbatch", "smoke", cwd=tmp_path)
    job = slurm.wait(number)
    assert job["JobState"] == "COMPLETED", log(tmp_path, number)
    assert_equal(reference, tmp_path / "runs" / f"job-{number}")


def test_array(slurm, tmp_path):
    """First, middle and last task of the array are the runs that the lists say."""
    expected = {"1": ("mocosfl", 3, 1), "6": ("monacosfl", 5, 1), "23": ("monacosfl", 8, 3)}
    number = slurm.submit("-n2", f"--array={','.join(expected)}", JOBS / "array.sbatch", "smoke", cwd=tmp_path)
    for task, (method, cut, seed) in expected.items():
        assert slurm.wait(f"{number}_{task}")["JobState"] == "COMPLETED", log(tmp_path, f"{number}_{task}")
        with open_run(tmp_path / "runs" / f"array-{number}" / f"{method}-cut{cut}-seed{seed}") as run:
            assert run.summary()["completed"]
            config = run.attrs["config"]
        assert (config["method"], config["model"]["cut_layer"], config["seed"]) == (method, cut, seed)


def test_array_beyond_its_lists_is_refused(slurm, tmp_path):
    number = slurm.submit("-n2", "--array=24", JOBS / "array.sbatch", "smoke", cwd=tmp_path)
    assert slurm.wait(f"{number}_24")["JobState"] == "FAILED"
    assert "more tasks than the lists have" in log(tmp_path, f"{number}_24")


@pytest.mark.parametrize(
    ("launch", "size"),
    # virtual nodes share one /tmp, which Open MPI's srun cannot bear: one node, two ranks
    [("pmix", ("--nodes=1", "-n2")) if OPEN_MPI else ("pmi2", ("--nodes=2", "-n4")), ("mpirun", ("--nodes=2", "-n4"))],
)
def test_launchers_inside_a_job(slurm, reference, tmp_path, launch, size):
    number = slurm.submit(*size, JOBS / "several_nodes.sbatch", "smoke", cwd=tmp_path, LAUNCH=launch)
    assert slurm.wait(number)["JobState"] == "COMPLETED", log(tmp_path, number)
    run = tmp_path / "runs" / f"job-{number}"
    assert_equal(reference, run)
    with open_run(run) as opened:
        assert len(opened["ranks/threads"]) == int(size[1][2:])


def test_launcher_that_does_not_match_is_refused_in_words(slurm, tmp_path):
    number = slurm.submit("--nodes=1", "-n3", JOBS / "several_nodes.sbatch", "smoke", cwd=tmp_path, LAUNCH="none")
    job = slurm.wait(number)
    assert job["JobState"] == "FAILED"
    assert job["ExitCode"] == "2:0"
    said = log(tmp_path, number)
    assert said.count("launcher and library do not match") == 1, said
    assert "srun --mpi=pmi2" in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs" / f"job-{number}" / "run.h5").exists()


@pytest.mark.parametrize("script", ["one_node", "several_nodes"])
def test_a_failing_rank_ends_the_job(slurm, tmp_path, script):
    number = slurm.submit(
        "--nodes=1",
        "-n2" if OPEN_MPI else "-n3",
        JOBS / f"{script}.sbatch",
        "smoke",
        cwd=tmp_path,
        PYTHONPATH=failing(tmp_path / "fault", rank=1),
        LAUNCH=SRUN,
    )
    job = slurm.wait(number)
    assert job["JobState"] == "FAILED"
    assert job["ExitCode"] != "0:0"
    assert job["Restarts"] == "0"
    said = log(tmp_path, number)
    assert "rank 1 of" in said
    assert "ValueError: injected" in said
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("script", ["one_node", "several_nodes"])
def test_a_run_longer_than_its_time_limit_finishes_with_the_same_bits(slurm, tmp_path, script):
    number = slurm.submit(
        "--nodes=1",
        "-n2",
        "--time=1",
        "--signal=B:USR1@35",
        JOBS / f"{script}.sbatch",
        "smoke",
        *LONG,
        cwd=tmp_path,
        PYTHONPATH=slowed(tmp_path / "slow", 0.25),
        LAUNCH=SRUN,
    )
    uninterrupted = finished(tmp_path / "uninterrupted", *LONG)
    job = slurm.wait(number, timeout=240)
    said = log(tmp_path, number)
    assert job["JobState"] == "COMPLETED", said
    assert int(job["Restarts"]) >= 1
    assert "Traceback" not in said
    assert_equal(uninterrupted, tmp_path / "runs" / f"job-{number}")


@pytest.mark.parametrize("script", ["one_node", "several_nodes"])
def test_a_warning_while_ranks_start_is_not_the_end(slurm, reference, tmp_path, script):
    """SLURM may warn before a rank can listen: the job queues again."""
    started = tmp_path / "started"
    number = slurm.submit(
        "--nodes=1",
        "-n2",
        JOBS / f"{script}.sbatch",
        "smoke",
        cwd=tmp_path,
        PYTHONPATH=starting_slowly(tmp_path / "slow", started, 6),
        LAUNCH=SRUN,
    )
    deadline = time.monotonic() + 60
    while not started.exists():
        assert time.monotonic() < deadline, log(tmp_path, number)
        time.sleep(0.1)
    assert slurm.command("scancel", "--batch", "--signal=USR1", number).returncode == 0
    job = slurm.wait(number)
    assert job["JobState"] == "COMPLETED", log(tmp_path, number)
    assert_equal(reference, tmp_path / "runs" / f"job-{number}")


@pytest.mark.parametrize("script", ["one_node", "several_nodes"])
def test_scancel_leaves_a_checkpoint_and_nothing_else(slurm, tmp_path, script):
    settings = ("--set", "epochs=40", "--set", "evaluation.every=1")
    number = slurm.submit(
        "--nodes=1",
        "-n2",
        JOBS / f"{script}.sbatch",
        "smoke",
        *settings,
        cwd=tmp_path,
        PYTHONPATH=slowed(tmp_path / "slow", 0.3),
        LAUNCH=SRUN,
    )
    out = tmp_path / "runs" / f"job-{number}"
    deadline = time.monotonic() + 60
    while epochs(out) < 2:
        assert time.monotonic() < deadline, log(tmp_path, number)
        time.sleep(0.2)
    assert slurm.command("scancel", number).returncode == 0
    assert slurm.wait(number)["JobState"] == "CANCELLED"
    assert_nothing_left(tmp_path)
    seen = epochs(out)
    assert "Traceback" not in log(tmp_path, number)
    time.sleep(8)
    assert slurm.job(number)["JobState"] == "CANCELLED", "a cancelled job came back"

    done = mocosfl("run", "smoke", *settings, "--out", out, "--resume", "must")
    assert done.returncode == 0, done.stderr
    assert epochs(out) > seen
    assert_equal(finished(tmp_path / "uninterrupted", *settings), out)


def test_only_the_task_that_ran_out_of_time_comes_back(slurm, tmp_path):
    """The last task of an array has the number of the whole array: requeueing that would start all of them again."""
    (tmp_path / "mocosfl").write_text(
        "#!/bin/bash\n"
        'echo "$SLURM_JOB_ID" >> "task-$SLURM_ARRAY_TASK_ID"\n'
        '[ "$SLURM_ARRAY_TASK_ID" = 1 ] && [ -z "$SLURM_RESTART_COUNT" ] && exit 75\n'
        "exit 0\n"
    )
    (tmp_path / "mocosfl").chmod(0o755)
    path = f"{tmp_path}:{slurm.environment()['PATH']}"
    number = slurm.submit("-n1", "--array=0-1", JOBS / "array.sbatch", "smoke", cwd=tmp_path, PATH=path)
    slurm.wait(f"{number}_0")
    deadline = time.monotonic() + 60
    while len(starts(tmp_path, 1)) < 2 or slurm.job(f"{number}_1")["JobState"] != "COMPLETED":
        assert time.monotonic() < deadline, slurm.job(f"{number}_1")
        time.sleep(0.3)
    assert number in starts(tmp_path, 1), "the case of this test: the task that comes back has the array's number"
    assert len(starts(tmp_path, 0)) == 1
    assert slurm.job(f"{number}_0")["Restarts"] == "0"


def test_slurm_command_submits_what_it_prints(slurm, reference, tmp_path):
    out = tmp_path / "a run; with 'signs'"
    words = ("slurm", "smoke", "-n", "2", "--time", "0:10:00", "--mem", "2G", "--partition", "test", "--out", out)
    done = slurm.command("mocosfl", *words, "--submit", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    number = done.stdout.split()[-1]
    job = slurm.wait(number)
    assert job["JobState"] == "COMPLETED", (tmp_path / f"smoke-{number}.log").read_text()
    assert job["TimeLimit"] == "00:10:00"
    assert job["Requeue"] == "1"
    assert_equal(reference, out)


def test_what_sbatch_refuses_is_one_message(slurm, tmp_path):
    done = slurm.command("mocosfl", "slurm", "smoke", "--partition", "nowhere", "--submit", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("mocosfl: sbatch refused the script")
    assert "invalid partition" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def epochs(out):
    if not (out / "run.h5").exists():
        return -1
    with open_run(out) as run:
        return len(run["epochs/loss"])


def starts(folder, task):
    file = folder / f"task-{task}"
    return file.read_text().split() if file.exists() else []


def assert_nothing_left(folder):
    deadline = time.monotonic() + 30
    while processes(str(folder)) or processes("runs/job-"):
        assert time.monotonic() < deadline, f"left behind: {processes(str(folder))} {processes('runs/job-')}"
        time.sleep(0.2)
