"""When to save and when to stop, with clocks and votes made by hand."""

import signal
import time

import pytest

from mocosfl_mpi import boundary, signals
from mocosfl_mpi.boundary import GO, SAVE, STOP, Boundary, seconds_left
from mocosfl_mpi.cadence import Cadence
from mocosfl_mpi.errors import BadInput


class Alone:
    serves = True

    @staticmethod
    def vote(urgency):
        return lambda: urgency


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that stands until it is moved."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(boundary.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(boundary, "asked", lambda: "")
    return Clock


def verdicts(steps, made, clock, last=(), seconds=1.0):
    found = []
    for step in range(steps):
        made.cast(last=step in last)
        clock.now += seconds
        found.append(made.verdict())
        if found[-1] == SAVE:
            made.saved(0.0)
    return found


def test_every_few_steps(clock):
    assert verdicts(7, Boundary(Alone, Cadence.parse("3steps"), None), clock) == [GO, GO, SAVE, GO, GO, SAVE, GO]


def test_every_epoch(clock):
    made = Boundary(Alone, Cadence.parse("1epoch"), None)
    assert verdicts(6, made, clock, last=(2, 5)) == [GO, GO, SAVE, GO, GO, SAVE]


def test_every_few_minutes(clock):
    made = Boundary(Alone, Cadence.parse("0.5min"), None)
    assert verdicts(6, made, clock, seconds=20.0) == [GO, GO, SAVE, GO, GO, SAVE]


def test_off(clock):
    assert set(verdicts(50, Boundary(Alone, Cadence.parse("off"), None), clock, seconds=1000.0)) == {GO}


def test_in_time_before_the_limit_with_room_for_two_more_steps_and_the_rest(clock):
    made = Boundary(Alone, Cadence.parse("off"), 100.0)
    stop = verdicts(40, made, clock, seconds=5.0).index(STOP)
    assert 70.0 <= 5.0 * (stop + 1) <= 90.0
    assert made.reason == "the time limit"


def test_one_step_at_least(clock):
    made = Boundary(Alone, Cadence.parse("off"), 1e-9)
    clock.now += 1.0
    assert verdicts(1, made, clock) == [STOP]


def test_a_wall_clock_that_jumps_changes_nothing(clock, monkeypatch):
    made = Boundary(Alone, Cadence.parse("10min"), 3600.0)
    monkeypatch.setattr(boundary.time, "time", lambda: 1e12)
    assert set(verdicts(20, made, clock)) == {GO}


def test_a_signal_stops(monkeypatch):
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    try:
        signals.listen()
        made = Boundary(Alone, Cadence.parse("off"), None)
        made.cast(last=False)
        assert made.verdict() == GO
        signal.raise_signal(signal.SIGUSR1)
        made.cast(last=False)
        assert (made.verdict(), made.reason) == (STOP, "SIGUSR1")
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signals.listen()  # forgets what was asked
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_launcher_that_fails_while_it_is_asked_to_stop_what_has_just_ended(monkeypatch, tmp_path):
    """Its exit code counts unless the record says that the run is complete."""
    from mocosfl_mpi import launch
    from mocosfl_mpi.cli import main
    from mocosfl_mpi.commands import run as command
    from tests.unit.record.samples import STATE, create

    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "MOCOSFL_RANKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "start", lambda *_, **__: 138)
    monkeypatch.setattr(command, "asked", lambda: "SIGUSR1")
    words = ["run", "smoke", "-n", "2", "--out", str(tmp_path / "out")]
    assert main(words) == 138
    with create(tmp_path / "out" / "run.h5") as recorder:
        recorder.complete(STATE)
    assert main(words) == 0
    monkeypatch.setattr(command, "asked", lambda: "")
    assert main(words) == 138


def test_the_limit_of_a_slurm_job(monkeypatch):
    end = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 600)}
    assert seconds_left(None, end) == pytest.approx(600, abs=5)
    assert seconds_left(2.0, end) == 7200
    assert seconds_left(None, {}) is None
    asked = []
    monkeypatch.setattr(boundary, "_asked_of_slurm", asked.append)
    seconds_left(None, {"SLURM_JOB_ID": "7"})
    seconds_left(None, {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"})
    assert asked == ["7", "7_2"]


@pytest.mark.parametrize(("said", "seconds"), [("1-02:03:04", 93784), ("10:00", 600), ("UNLIMITED", None), ("", None)])
def test_what_squeue_says(monkeypatch, tmp_path, said, seconds):
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert boundary._asked_of_slurm("7") == seconds


@pytest.mark.parametrize("text", ["10", "min", "0min", "1.5steps", "-3epochs", "3 weeks", "nanmin"])
def test_cadences_that_are_none(text):
    with pytest.raises(BadInput, match="expected for example 10min"):
        Cadence.parse(text)
