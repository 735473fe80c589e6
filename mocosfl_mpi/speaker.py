"""Rank 0 speaks: bars with an estimate of the remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mocosfl_mpi.comm.environment import launcher
from mocosfl_mpi.launch import TERMINAL

SECONDS_BETWEEN_LINES = 10.0


def console() -> Console:
    """Standard output, or the terminal that the launcher saw.

    Under mpiexec a rank's output is a pipe, and with Open MPI a terminal of its own even where a person has sent
    the launcher's output to a file: only the launcher knows.
    """
    columns = os.environ.get(TERMINAL, "")
    if columns.isdigit():
        return Console(force_terminal=True, width=int(columns))
    if launcher() or not sys.stdout.isatty():
        return Console(force_terminal=False, force_jupyter=False, width=110, highlight=False)
    return Console()


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


class Speaker:
    """Says what a person wants to know while a run goes on; silent on every rank but the first, or when quiet."""

    def __init__(self, steps: int, *, silent: bool) -> None:
        self._silent = silent
        self._steps = steps
        self._done = self._before = 0
        self._start = self._last = time.monotonic()
        self._console = console()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if not silent and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("loss {task.fields[loss]}"),
                console=self._console,
            )

    def __enter__(self) -> Speaker:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """One line for a person."""
        if not self._silent:
            self._console.print(text, markup=False, soft_wrap=True)
            sys.stdout.flush()

    def begin(self, done: int) -> None:
        """Training starts, or goes on after ``done`` steps: time counts from here."""
        self._start = self._last = time.monotonic()
        self._done = self._before = done
        if self._bar:
            self._task = self._bar.add_task("training", total=self._steps, completed=done, loss="")

    def step(self, epoch: int, epochs: int, loss: float) -> None:
        """One step is done; ``epoch`` counts from 0."""
        self._done += 1
        if self._silent:
            return
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=1, description=f"epoch {epoch + 1}/{epochs}", loss=f"{loss:.3f}")
            return
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES and self._done < self._steps:
            return
        self._last = now
        elapsed = now - self._start
        rate = (self._done - self._before) / elapsed
        self.say(
            f"epoch {epoch + 1}/{epochs}  step {self._done}/{self._steps}  loss {loss:.3f}  "
            f"elapsed {clock(elapsed)}  remaining {clock((self._steps - self._done) / rate)}  {rate:.2f} steps/s"
        )
