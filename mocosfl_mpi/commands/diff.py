"""``mocosfl diff``: are two runs the same experiment with the same outcome?"""

from __future__ import annotations

import argparse
from pathlib import Path

from mocosfl_mpi.commands.common import Subcommands


def add(commands: Subcommands) -> None:
    """Declare the command."""
    diff = commands.add_parser(
        "diff", help="whether two runs have the same configuration and trained state (exit 0), or what differs (1)"
    )
    diff.add_argument("a", type=Path, metavar="A")
    diff.add_argument("b", type=Path, metavar="B")
    diff.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.record.reader import differences, open_run

    with open_run(options.a) as a, open_run(options.b) as b:
        difference = differences(a, b)
    print(difference or "equal: same configuration, same trained state")
    return 1 if difference else 0
