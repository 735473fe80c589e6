"""Whether a run is over, at work, ended early or was killed: told from its file and the lock on its directory."""

from __future__ import annotations

from typing import Literal

from mocosfl_mpi.record.output import at_work, holder
from mocosfl_mpi.record.reader import Run

Standing = Literal["complete", "running", "stopped", "killed"]
MEANINGS: dict[Standing, str] = {
    "complete": "reached its end",
    "running": "at work at this moment, or being attacked; on another machine as far as its lock says",
    "stopped": "ended early but in good order, as when asked to; the same command goes on",
    "killed": "it ended without a word: its file is open, or its lock names a process that is gone",
}


def standing(run: Run) -> Standing:
    """How the run stands."""
    if run.completed:
        return "complete"
    directory = run.path.parent
    if at_work(directory) is not False:
        return "running"
    return "killed" if run.left_open or holder(directory) else "stopped"
