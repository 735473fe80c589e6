"""Whether a run is over, at work, ended early or was killed: told from its file and the lock on its directory."""

from __future__ import annotations

from typing import Literal

from mocosfl_mpi.record.output import at_work
from mocosfl_mpi.record.reader import Run

Standing = Literal["complete", "running", "stopped", "killed"]
MEANINGS: dict[Standing, str] = {
    "complete": "reached its end",
    "running": "at work at this moment, or being attacked",
    "stopped": "ended early but in good order, as when asked to; the same command goes on",
    "killed": "its file is open, its lock is not held: it crashed, or is at work on another machine",
}


def standing(run: Run) -> Standing:
    """How the run stands."""
    if run.completed:
        return "complete"
    held = at_work(run.path.parent)
    if held:
        return "running"
    return "killed" if run.left_open or held is False else "stopped"
