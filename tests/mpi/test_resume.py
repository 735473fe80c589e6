"""A run that is killed anywhere goes on, on another number of ranks, to the same bits and the same record."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import ENTRIES
from tests.mpi.command import MOCOSFL, clean_environment, mocosfl, processes, says_once
from tests.mpi.many import carry_out

pytestmark = pytest.mark.mpi

EPOCHS, STEPS = 8, 4
BASE = ("run", "smoke", "--set", f"epochs={EPOCHS}", "--set", "evaluation.every=3")
MEASURED = ("measured/", "ranks/", "sessions/")
OF_THIS_COMPUTER = {"evaluations/wall_seconds", "result/wall_seconds", "committed"}


def same_record(expected, found):
    """Every recorded series and result but what this computer's clock and ranks have to say."""
    with open_run(expected) as a, open_run(found) as b:
        assert a.state_sha256 == b.state_sha256 is not None
        assert a.names == b.names
        for name in (name for name in a.names if name in ENTRIES):
            if not name.startswith(MEASURED) and name not in OF_THIS_COMPUTER:
                x, y = a[name], b[name]
                assert x.shape == y.shape, name
                assert x.tobytes() == y.tobytes() if x.dtype.kind in "fiu" else (x == y).all(), name
        assert b["epoch"].tolist() == list(range(EPOCHS))
        assert b["step"].tolist() == list(range(EPOCHS * STEPS))
        return b["sessions/step"].tolist(), b["sessions/ranks"].tolist()


def finish(out, ranks, *settings, expect=0, **extra):
    done = mocosfl(*BASE, "-n", str(ranks), "--out", out, *settings, **extra)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Uninterrupted runs by settings."""
    made = {}

    def run(*settings):
        if settings not in made:
            made[settings] = tmp_path_factory.mktemp("reference") / "run"
            finish(made[settings], 1, *settings)
        return made[settings]

    return run


FURTHER = (
    "label_shares=[0.1,1.0]",
    "published_probe=true",
    "fine_tune_share=0.2",
    "fine_tune_epochs=2",
    "per_client=true",
)
CASES = [
    ("--set", "method=fl_moco", "--set", "client.batch_size=4"),
    ("--set", "method=fl_byol", "--set", "client.batch_size=4"),
    ("--set", "method=fl_simclr", "--set", "client.batch_size=4"),
    ("--set", "method=fl_simsiam", "--set", "client.velocity_at_sync=reset"),
    ("--set", "method=fedavg", "--set", "client.velocity_at_sync=averaged"),
    ("--set", "method=sfl_v2"),
    ("--set", "method=sfl_v1", "--set", "federation.sync_freq=1"),
    ("--set", "method=split_vanilla"),
    ("--set", "method=split_u_shaped"),
    ("--set", "method=fedema", "--set", "client.batch_size=4"),
    ("--set", "method=fedu", "--set", "federation.divergence_threshold=0.65"),
    ("--set", "method=standalone", "--set", "evaluation.own_models=2"),
    ("--set", "method=split_vertical", "--set", "client.count=4"),
    tuple(word for setting in FURTHER for word in ("--set", f"evaluation.{setting}")),
    ("--set", "method=monacosfl", "--set", "client.velocity_at_sync=averaged"),
    ("--set", "client.frozen=true"),
    (
        *("--set", "defence.clip=2", "--set", "defence.noise=gaussian", "--set", "defence.noise_scale=0.3"),
        *("--set", "defence.dropout=0.2", "--set", "defence.nopeek=1", "--set", "client.batch_size=4"),
    ),
    ("--set", "contrast.share_features=false", "--set", "client.schedule_step=published"),
    ("--set", "model.head=largeV2", "--set", "client.sampling_ratio=1.0", "--set", "compute.backend=stacked"),
    ("--set", "compute.precision=fp64", "--set", "compute.backend=loop", "--set", "server.momentum=0.0"),
    ("--set", "federation.alignment=none"),
    tuple(
        word
        for name in ("client_dropout", "query_loss", "key_loss", "gradient_loss", "sync_miss")
        for word in ("--set", f"reliability.{name}=0.4")
    ),
    (
        *("--set", "client.rich_share=0.34", "--set", "client.rich_batch_factor=3", "--set", "steps_per_epoch=4"),
        *("--set", "partition.rich_data=0.6", "--set", "reliability.key_loss=0.3"),
    ),
    (
        *("--set", "client.rich_share=0.5", "--set", "model.rich_cut_layer=4", "--set", "method=monacosfl"),
        *("--set", "federation.momentum_every=3", "--set", "client.sampling_ratio=0.25"),
    ),
    (
        *("--set", "reliability.sync_miss=0.5", "--set", "method=monacosfl", "--set", "federation.momentum_every=3"),
        *("--set", "reliability.query_loss=0.9", "--set", "client.gradient_scale=own_rows"),
    ),
    ("--set", "federation.alignment=momentum_reset", "--set", "client.sampling=round_robin"),
    ("--set", "method=monacosfl", "--set", "federation.momentum_every=3", "--set", "client.sampling=by_data"),
    ("--set", "method=monacosfl", "--set", "federation.momentum_compression=int8"),
    (
        *("--set", "method=monacosfl", "--set", "federation.momentum_compression=topk"),
        *("--set", "federation.momentum_every=3", "--set", "federation.aligned_layers=['block1']"),
    ),
    (
        *("--set", "federation.aligned_layers=['stem']", "--set", "client.velocity_at_sync=averaged"),
        *("--set", "client.sampling=trace", "--set", "client.availability=['110', '011', '101']"),
    ),
    (
        *("--set", "defence.resistance=2.0", "--set", "defence.resistance_decoder=conv_normN0C4"),
        *("--set", "defence.resistance_ssim=0.1", "--set", "defence.resistance_every=3"),
    ),
    # After a step, the sessions go on in A; see also `test_stopped_in_every_state`.
    ("--set", "communication.download_every=3", "--set", "client.schedule_step=published"),
    ("--set", "communication.loss_threshold=0.01", "--set", "communication.warmup_epochs=0"),
    (
        *("--set", "method=fl_moco", "--set", "federation.alignment=online_and_momentum"),
        *("--set", "federation.momentum_every=3", "--set", "federation.momentum_compression=topk"),
        *("--set", "federation.aligned_layers=['stem', 'head']"),
    ),
]


def test_stopped_after_each_step_on_changing_ranks(tmp_path, reference):
    """`--max-hours` of nothing does one step a session: in mid-epoch and at its end, on 1, 2, 3 and 5 ranks."""
    out, ranks = tmp_path / "run", [3, 1, 5, 2, 1]
    for number in ranks[:-1]:
        done = finish(out, number, "--max-hours", "1e-9", expect=75)
        assert "by the time limit; the same command continues the run" in done.stderr
    finish(out, ranks[-1])
    assert same_record(reference(), out) == (list(range(len(ranks))), ranks)
    assert len(list((out / "checkpoints").iterdir())) == 2
    done = mocosfl("inspect", out)
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stdout
    assert f"the last of {len(ranks)} sessions" in " ".join(done.stdout.split())


SAVING = [f"communication.{word}" for word in ("loss_threshold=1000", "warmup_epochs=0", "smashed=int8")]
SAVING = [word for setting in (*SAVING, "epochs=5") for word in ("--set", setting)]
"""Epochs in the states A, A, B, C, C."""


@pytest.mark.slow
def test_stopped_in_every_state(tmp_path, monkeypatch):
    """A step a session: they end within B, within C and between two Cs, and go on with other numbers of ranks."""
    monkeypatch.setattr(f"{__name__}.EPOCHS", 5)
    monkeypatch.setattr(f"{__name__}.STEPS", 2)
    words = [
        *SAVING,
        "--set",
        "steps_per_epoch=2",
        "--set",
        "compute.precision=bf16",
        "--set",
        "compute.backend=stacked",
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    carry_out([[*BASE, "--quiet", "--out", whole, *words]], 1, tmp_path / "whole.json")
    command = [*BASE, "--quiet", "--out", parts, *words]
    for ranks, steps in ((1, 5), (3, 2), (2, 1)):  # until 5, 7 and 8 steps are done
        carry_out([[*command, "--max-hours", "1e-9"]] * steps, ranks, tmp_path / "parts.json", expect=75)
    carry_out([command], 5, tmp_path / "rest.json")
    starts, _ = same_record(whole, parts)
    assert starts == list(range(9))
    with open_run(parts) as run:
        assert run["epochs/state"].tolist() == [0, 0, 1, 2, 2]
        assert run["epochs/next_state"].tolist() == [0, 1, 2, 2, 2]


@pytest.mark.slow
def test_killed_within_a_replay(tmp_path, monkeypatch):
    """kill -9 of a rank in state C on two ranks, and on with three."""
    monkeypatch.setattr(f"{__name__}.EPOCHS", 30)
    settings = [*SAVING, "--set", "epochs=30", "--set", "evaluation.every=0"]
    out = tmp_path / "run"
    process = start(out, 2, *settings)
    try:
        wait_for(lambda: any((out / "checkpoints").glob("step-000000002*")), process)  # steps from 12 are replays
        kill([ranks_of(out, process)[-1]])
        assert process.wait(timeout=60) != 0
    finally:
        end(out, process)
    newest = sorted((out / "checkpoints").glob("step-*"))[-1]
    assert (newest / "replay-000000.safetensors").exists()
    finish(out, 3, *settings)
    finish(tmp_path / "whole", 1, *settings)
    starts, ranks = same_record(tmp_path / "whole", out)
    assert ranks == [2, 3]
    assert starts == [0, int(newest.name[5:])]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Directories of each case: an uninterrupted run, and one stopped after a step on two ranks and one on three."""
    folder = tmp_path_factory.mktemp("cases")
    whole, parts = ([folder / f"{kind}-{number}" for number in range(len(CASES))] for kind in ("whole", "parts"))

    def go(outs, ranks, *more, expect=0):
        commands = [[*BASE, "--quiet", "--out", out, *case, *more] for out, case in zip(outs, CASES, strict=True)]
        carry_out(commands, ranks, folder / "commands.json", expect=expect)

    go(whole, 1)
    go(parts, 2, "--max-hours", "1e-9", expect=75)
    go(parts, 3, "--max-hours", "1e-9", expect=75)
    go(parts, 1)
    return list(zip(whole, parts, strict=True))


@pytest.mark.parametrize("case", range(len(CASES)))
def test_every_kind_of_state_is_brought_back(resumed, case):
    assert same_record(*resumed[case]) == ([0, 1, 2], [2, 3, 1])


def test_a_finished_run_says_so_and_is_left_alone(tmp_path, reference):
    shutil.copytree(reference(), tmp_path / "run")
    before = (tmp_path / "run" / "run.h5").read_bytes()
    done = finish(tmp_path / "run", 3)
    assert "is complete; nothing is left to do" in done.stdout
    assert (tmp_path / "run" / "run.h5").read_bytes() == before
    assert not (tmp_path / "run" / "lock").exists()


@pytest.mark.parametrize(
    ("words", "ranks", "message"),
    [
        (("--set", "seed=5", "--set", "client.lr=0.01"), 3, "client.lr was 0.06 and is 0.01; seed was 1234 and is 5"),
        (("--resume", "never"), 3, "results are never overwritten"),
        (("--set", "compute.precision=fp64"), 1, "compute.precision was"),
    ],
)
def test_another_experiment_is_refused_in_one_message(tmp_path, reference, words, ranks, message):
    shutil.copytree(reference(), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = finish(tmp_path / "run", ranks, *words, expect=2)
    says_once(done.stderr)
    assert message in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.fixture(scope="module")
def stopped_twice(tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "run"
    for _ in range(2):
        finish(out, 1, "--max-hours", "1e-9", expect=75)
    return out


@pytest.fixture
def interrupted(stopped_twice, tmp_path):
    """A run stopped twice: its directory, and two checkpoints, after one and two steps."""
    shutil.copytree(stopped_twice, tmp_path / "run")
    return tmp_path / "run", sorted((tmp_path / "run" / "checkpoints").iterdir())


def test_a_damaged_checkpoint_falls_back_to_the_one_before(interrupted, reference):
    out, (_, newest) = interrupted
    os.truncate(newest / "server-online.safetensors", 100)
    done = finish(out, 2)
    assert f"Warning: the checkpoint {newest} is damaged" in done.stdout
    assert same_record(reference(), out)[0] == [0, 1]


def test_both_damaged_are_refused(interrupted):
    out, saved = interrupted
    for path in saved:
        (path / "manifest.json").unlink()
    done = finish(out, 3, expect=2)
    says_once(done.stderr)
    assert "no checkpoint in" in done.stderr
    assert f"remove {out / 'checkpoints'}" in done.stderr


def test_a_cut_record_is_refused(interrupted):
    out, _ = interrupted
    os.truncate(out / "run.h5", (out / "run.h5").stat().st_size // 2)
    done = finish(out, 3, expect=2)
    says_once(done.stderr)
    assert "damaged" in done.stderr


def test_a_record_older_than_the_checkpoint_is_refused(tmp_path):
    finish(tmp_path / "run", 1, "--max-hours", "1e-9", expect=75)
    shutil.copy(tmp_path / "run" / "run.h5", tmp_path / "older.h5")
    finish(tmp_path / "run", 1, "--max-hours", "1e-9", expect=75)
    shutil.copy(tmp_path / "older.h5", tmp_path / "run" / "run.h5")
    done = finish(tmp_path / "run", 1, expect=2)
    assert "older than the checkpoint or was cut" in done.stderr


def test_a_checkpoint_of_another_experiment_is_refused(interrupted, tmp_path):
    out, _ = interrupted
    finish(tmp_path / "other", 1, "--set", "seed=5", "--max-hours", "1e-9", expect=75)
    shutil.rmtree(out / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", out / "checkpoints")
    done = finish(out, 3, expect=2)
    says_once(done.stderr)
    assert "belongs to another experiment" in done.stderr


def test_a_checkpoint_without_its_record_is_refused(interrupted):
    out, _ = interrupted
    (out / "run.h5").unlink()
    done = finish(out, 1, expect=2)
    assert "is gone: bring it back" in done.stderr


def test_two_runs_in_one_directory_are_refused(tmp_path):
    out = tmp_path / "run"
    first = start(out, 1, "--set", "evaluation.linear_probe=false", "--set", "epochs=4000")
    try:
        wait_for((out / "run.h5").exists, first)
        done = mocosfl(*BASE, "--out", out, "--set", "epochs=4000")
        assert done.returncode == 2
        assert f"another run is at work in {out} (process {first.pid} on " in done.stderr
    finally:
        first.kill()
        first.wait()


def test_a_hung_rank_ends_the_job(tmp_path):
    """One host is stopped by SIGSTOP; the others lose patience."""
    out = tmp_path / "run"
    process = start(out, 3, "--patience", "0.1", "--set", "epochs=4000", stderr=subprocess.PIPE)
    try:
        wait_for(lambda: len(list((out / "checkpoints").glob("step-*"))) > 0, process)
        os.kill(ranks_of(out, process)[-1], signal.SIGSTOP)
        _, said = process.communicate(timeout=60)
        assert process.returncode not in (0, 75)
        assert "no word from the other ranks for 6 s" in said
        assert ", epoch " in said
    finally:
        end(out, process)
    wait_for(lambda: not processes(str(out)))


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path):
    """A file system on which the record fits and checkpoints do not."""
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(small)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        done = finish(small / "run", 2, "--checkpoint-every", "5steps")
        assert "Warning: no checkpoint could be saved" in done.stdout
        assert "No space left" in done.stdout
        assert list((small / "run" / "checkpoints").iterdir()) == []
        with open_run(small / "run") as run:
            assert run.completed
        done = mocosfl(*BASE, "--out", small / "again", "--max-hours", "1e-9", "--set", "seed=2")
        assert done.returncode in (1, 2)
        assert "free some space" in done.stderr or "disk is full" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)


# ------------------------------------------------------------------------------------------------ kills


def start(out, ranks, *settings, stderr=subprocess.DEVNULL):
    return subprocess.Popen(
        [*MOCOSFL, *BASE, "--checkpoint-every", "1steps", "-n", str(ranks), "--out", str(out), *settings],
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
        env=clean_environment(),
    )


def wait_for(condition, process=None, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        if process is not None and process.poll() is not None:
            return False
        time.sleep(0.001)
    return True


def ranks_of(out, process):
    """Process numbers of the ranks: those that MPI has started."""
    found = []
    for pid, line in processes(str(out)):
        if "-m mocosfl_mpi" in line and "mpiexec" not in line:
            try:
                names = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if b"PMI_RANK" in names or b"OMPI_COMM_WORLD_RANK" in names:
                found.append(pid)
    return sorted(found) or [process.pid]


def end(out, process):
    for pid, _ in processes(str(out)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(timeout=20)


def kill(victims, number=signal.SIGKILL):
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def moment(kind, out, process, generator):
    """Wait for the moment at which to kill; False when the run was faster."""
    if not wait_for((out / "run.h5").exists, process):
        return False
    if kind == "checkpoint":
        after = generator.randrange(1, 20)
        wait_for(lambda: any((out / "checkpoints").glob(f"step-{after:010d}*")), process)
        return wait_for(lambda: any((out / "checkpoints").glob(".unfinished-*")), process)
    time.sleep(generator.uniform(0.0, 2.0))
    if kind == "flush":
        size = (out / "run.h5").stat().st_mtime_ns
        return wait_for(lambda: (out / "run.h5").stat().st_mtime_ns != size, process)
    return True


KINDS = ("rank", "launcher", "everything", "TERM", "checkpoint", "flush")


def kill_and_resume(out, kind, ranks, others, generator):
    """Kill a run of ``ranks``, let it go on with ``others``; what happened, in words."""
    process = start(out, ranks)
    try:
        struck = moment(kind, out, process, generator)
        members = ranks_of(out, process)
        if kind == "launcher":
            kill([process.pid])
        elif kind == "TERM":
            kill([process.pid], signal.SIGTERM)
        elif kind == "everything":
            kill([process.pid, *(pid for pid, _ in processes(str(out)))])
        else:
            kill([generator.choice(members)])
        code = process.wait(timeout=60)
    finally:
        if kind != "launcher":
            end(out, process)
    wait_for(lambda: not processes(str(out)))
    saved = sorted(path.name for path in (out / "checkpoints").glob("step-*"))
    finish(out, others, "--checkpoint-every", "7steps")
    return f"{kind}{'' if struck else ' (too late)'}: exit {code} on {ranks} ranks, {saved[-1:]}, went on with {others}"


@pytest.mark.parametrize(("kind", "ranks", "others"), [("rank", 3, 2), ("checkpoint", 2, 3), ("TERM", 3, 1)])
def test_killed_and_resumed(tmp_path, reference, kind, ranks, others):
    kill_and_resume(tmp_path / "run", kind, ranks, others, random.Random(1))
    same_record(reference(), tmp_path / "run")


@pytest.mark.slow
def test_forty_kills(tmp_path, reference):
    generator = random.Random(40)
    pairs = itertools.cycle(list(itertools.permutations((1, 2, 3, 5), 2)))
    resumed = 0
    for number in range(40):
        kind = KINDS[number % len(KINDS)]
        ranks, others = next(pairs)
        said = kill_and_resume(tmp_path / str(number), kind, ranks, others, generator)
        starts, _ = same_record(reference(), tmp_path / str(number))
        resumed += starts[-1] > 0
        print(f"{number + 1:2d}  {said}; sessions from steps {starts}; same bits, same record", flush=True)
        shutil.rmtree(tmp_path / str(number))
    assert resumed >= 25, "too few kills hit a run between its first checkpoint and its end"
