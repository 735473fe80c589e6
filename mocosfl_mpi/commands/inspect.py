"""``mocosfl inspect``: what a run was and what came of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mocosfl_mpi.commands.common import Subcommands


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
        if options.json:
            print(json.dumps(run.summary()))
        else:
            show(run, console())
    return 0
