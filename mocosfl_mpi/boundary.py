"""Between two steps: go on, save a checkpoint, or save one and stop. All ranks do the same at the same step."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping

from mocosfl_mpi.cadence import Cadence
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.signals import asked

GO, SAVE, STOP = range(3)
MARGIN = 10.0
"""Seconds before a time limit that are left for what no step shows: closing files, ending ranks."""


def seconds_left(max_hours: float | None, environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds until this run must have stopped: as asked for, else until SLURM ends the job; None = no limit."""
    if max_hours is not None:
        return max_hours * 3600.0
    if "SLURM_JOB_ID" not in environ:
        return None
    end = environ.get("SLURM_JOB_END_TIME", "")
    if end.isdigit():
        return max(0.0, int(end) - time.time())
    task = environ.get("SLURM_ARRAY_TASK_ID")  # the last task of an array shares its number with the whole array
    return _asked_of_slurm(f"{environ['SLURM_ARRAY_JOB_ID']}_{task}" if task else environ["SLURM_JOB_ID"])


def _asked_of_slurm(job: str) -> float | None:
    """Seconds left to ``job`` as squeue says them ([days-][hours:]minutes:seconds); None where it cannot."""
    try:
        done = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%L"], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", done.stdout.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


class Boundary:
    """Knows the cadence, the time limit and the signals of this rank, and agrees with the others.

    The vote of a step is cast when it begins, so that nobody waits for it when it ends: a signal is obeyed at the
    end of the step after the one in which it came, and at least one step is done in any session.
    """

    def __init__(self, cluster: Cluster, cadence: Cadence, left: float | None) -> None:
        self._cluster = cluster
        self._cadence = cadence
        self._limit = None if left is None else time.monotonic() + left  # the wall clock may jump, this one does not
        self._margin = MARGIN if left is None else min(MARGIN, 0.1 * left)
        self._saved = self._began = time.monotonic()
        self._steps = self._epochs = 0
        self._longest = self._saving = 0.0
        self._result: Callable[[], int] = lambda: GO
        self._out_of_time = False

    def cast(self, *, last: bool) -> None:
        """A step begins (``last`` of its epoch or not)."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._began)
        self._began = now
        self._steps += 1
        self._epochs += last
        urgency = SAVE if self._cluster.serves and self._due(now) else GO
        if self._cluster.serves and self._late(now):
            self._out_of_time = True
            urgency = STOP
        self._result = self._cluster.vote(STOP if asked() else urgency)

    @property
    def reason(self) -> str:
        """Why the run is to stop, in words (rank 0)."""
        return "the time limit" if self._out_of_time else asked() or "a signal to another rank"

    def _due(self, now: float) -> bool:
        count = {"min": (now - self._saved) / 60.0, "steps": self._steps, "epochs": self._epochs}[self._cadence.unit]
        return 0 < self._cadence.every <= count

    def _late(self, now: float) -> bool:
        if self._limit is None:
            return False
        return now + self._margin + 2.0 * (self._longest + self._saving) > self._limit

    def verdict(self) -> int:
        """The step is done: GO, SAVE or STOP, the same on every rank."""
        return self._result()

    def saved(self, seconds: float) -> None:
        """A checkpoint has been saved, which took ``seconds``."""
        self._saved = self._began = time.monotonic()
        self._steps = self._epochs = 0
        self._saving = max(self._saving, seconds)
