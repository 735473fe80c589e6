"""``mocosfl inspect``: what a run was and what came of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocosfl_mpi.commands.common import Subcommands
from mocosfl_mpi.errors import BadInput

if TYPE_CHECKING:
    from mocosfl_mpi.record.reader import Run


def add(commands: Subcommands) -> None:
    """Declare the command."""
    inspect = commands.add_parser("inspect", help="what a run was and what came of it")
    inspect.add_argument("run", type=Path, metavar="RUN", help="a run's directory or its run.h5")
    inspect.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    inspect.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.record.reader import open_run
    from mocosfl_mpi.record.show import show
    from mocosfl_mpi.speaker import console

    with open_run(options.run) as run:
        plan = _planned(run) if run.completed else None
        if options.json:
            print(json.dumps(run.summary() | {"plan": plan}))
        else:
            show(run, console())
            if plan:
                from mocosfl_mpi.plan.compare import actual, render

                console().print(render(plan, actual(run)), "")
    return 0


def _planned(run: Run) -> dict[str, Any] | None:
    """The plan of the run; None where it cannot be told, which is no reason to hide the run."""
    try:
        from mocosfl_mpi.plan.compare import planned
    except BadInput:  # MPI cannot be loaded on this machine
        return None
    return planned(run)
