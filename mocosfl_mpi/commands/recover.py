"""``mocosfl recover``: a clean, closed file from that of a killed run."""

from __future__ import annotations

import argparse
from pathlib import Path

from mocosfl_mpi.commands.common import Subcommands


def add(commands: Subcommands) -> None:
    """Declare the command."""
    recover = commands.add_parser(
        "recover",
        help="make the file of a killed run, or of an older version, a clean and closed one",
        description="Rewrite RUN in place with all its whole rows, closed and in the present schema. Any HDF5 program "
        "opens it then. `mocosfl run` does the same by itself when it continues a run.",
    )
    recover.add_argument("run", type=Path, metavar="RUN", help="a run's directory or its run.h5")
    recover.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.record.carry import recover
    from mocosfl_mpi.record.output import Lock

    path = Path(options.run)
    lock = Lock(path if path.is_dir() else path.parent, patience=0.0)
    try:
        rows = recover(path)
    finally:
        lock.release()
    counts = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in rows.items())
    print(f"{path} is clean and closed: {counts}")
    return 0
