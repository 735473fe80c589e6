"""``mocosfl report``: one page on one run, on a grid, or on any runs together."""

from __future__ import annotations

import argparse
from pathlib import Path

from mocosfl_mpi.commands.common import Subcommands


def add(commands: Subcommands) -> None:
    """Declare the command."""
    report = commands.add_parser(
        "report",
        help="one HTML page on a run or on many: results, figures, cost, privacy, how to do it again",
        description="Write one self-contained HTML page on a run, finished or not, or on many of them, grouped by what "
        "their configurations differ in.",
    )
    report.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's directory, its run.h5, or a directory of runs"
    )
    report.add_argument(
        "-o",
        dest="out",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html in RUN if that is one directory, else in the current one)",
    )
    report.add_argument(
        "--published",
        type=Path,
        metavar="GRID.toml",
        help="show the published numbers of this grid (jobs/configs/*.toml) beside the runs of its cells",
    )
    report.add_argument("--title", default="", help="the page's title (default: the name of the run or directory)")
    report.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.report.page import Order, check_libraries, place, report, write

    check_libraries()
    out = options.out or place(options.runs)
    write(report(Order(options.runs, options.published, options.title)), out)
    print(f"Written: {out}")
    return 0
