"""``mocosfl grid``: all runs of a table or figure; list them, compute them, tell what came of them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl_mpi.commands.common import Subcommands, add_data_dir, add_settings, data_dir
from mocosfl_mpi.commands.slurm import add_requests, deliver, request
from mocosfl_mpi.errors import FAILURE, STOPPED, BadInput

if TYPE_CHECKING:
    from mocosfl_mpi.grid.description import Grid, Trial

STATES = {None: "missing", False: "unfinished", True: "complete"}


def add(commands: Subcommands) -> None:
    """Declare the command."""
    grid = commands.add_parser(
        "grid",
        help="all runs of a table or figure: list, run, submit, tabulate",
        description="List the runs that a grid's description asks for, compute those that are missing here or on a "
        "cluster, and print the table of results beside the published numbers.",
    )
    grid.add_argument("grid", type=Path, metavar="GRID.toml", help="a description (see jobs/configs)")
    what = grid.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="the runs and their state (default)")
    what.add_argument("--run", action="store_true", help="run what is missing, one after the other, with -n ranks (1)")
    what.add_argument("--slurm", action="store_true", help="print an array job for what is missing")
    what.add_argument("--submit", action="store_true", help="hand that array job to sbatch")
    what.add_argument("--table", action="store_true", help="mean ± std over seeds and published numbers, in Markdown")
    what.add_argument("--json", action="store_true", help="the figures of every complete run, and its curve")
    grid.add_argument("--only", default="", metavar="TEXT", help="cells with TEXT in their name")
    grid.add_argument("--out", type=Path, metavar="DIR", help="directory for all results (default: runs/GRID)")
    add_settings(grid)
    add_data_dir(grid)
    add_requests(grid)
    grid.add_argument("--at-once", type=int, metavar="N", help="at most N jobs of the array at a time")
    grid.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.grid.description import read_grid
    from mocosfl_mpi.grid.published import write_published
    from mocosfl_mpi.grid.results import check_metrics, completed
    from mocosfl_mpi.grid.tables import as_json, table

    grid = read_grid(options.grid, options.settings).only(options.only)
    check_metrics(grid)
    out = options.out or Path("runs") / grid.name
    if options.table or options.json:
        print(table(grid, out) if options.table else as_json(grid, out), end="")
        return 0
    states = {trial.name: completed(trial, out) for trial in grid.trials}
    if options.run or options.slurm or options.submit:
        missing = [trial for trial in grid.trials if not states[trial.name]]
        if not missing:
            print(f"All {len(grid.trials)} runs in {out} are complete.")
            return 0
        _check_data(missing, data_dir(options))
        write_published(grid, out)
        return _compute(options, missing, out) if options.run else _array(options, grid, missing, out)
    for name, state in states.items():
        print(f"{STATES[state]:<10}  {name}")
    return 0


def _check_data(trials: list[Trial], folder: Path | None) -> None:
    """What a run would refuse after hours of others is refused now."""
    from mocosfl_mpi.data.check import check

    for data in {trial.config.data for trial in trials}:
        check(data, folder)


def _compute(options: argparse.Namespace, trials: list[Trial], out: Path) -> int:
    from mocosfl_mpi.grid.results import write_configurations
    from mocosfl_mpi.launch import attend
    from mocosfl_mpi.signals import asked

    if options.ranks is not None and options.ranks < 1:
        raise BadInput(f"-n {options.ranks}: at least one rank is needed; -n 1 computes everything in one process")
    configurations, folder = write_configurations(trials, out), data_dir(options)
    failed = []
    for number, trial in enumerate(trials, 1):
        print(f"[{number}/{len(trials)}] {trial.name}", flush=True)
        words = ["run", str(configurations / f"{trial.name}.toml"), "-n", str(options.ranks or 1)]
        words += ["--out", str(out / trial.name), "--resume", "auto"]
        words += ["--data-dir", str(folder)] if folder else []
        code = attend([sys.executable, "-m", "mocosfl_mpi", *words], os.environ)
        if asked() or code == STOPPED:
            print(f"Stopped in {trial.name}; the same command continues.")
            return STOPPED
        failed += [trial.name] if code else []
    if failed:
        print(f"{len(failed)} of {len(trials)} runs failed: {', '.join(failed)}")
    return FAILURE if failed else 0


def _array(options: argparse.Namespace, grid: Grid, trials: list[Trial], out: Path) -> int:
    from mocosfl_mpi.grid.results import write_configurations
    from mocosfl_mpi.slurm import script

    folder, out = data_dir(options), out.absolute()
    arguments = (str(write_configurations(trials, out)), *(["--data-dir", str(folder.absolute())] if folder else []))
    names = tuple(trial.name for trial in trials)
    gpus = int(any(trial.config.compute.device != "cpu" for trial in trials))
    job = request(options, grid.name, arguments, str(out), names, gpus)
    return deliver(script(job), submit=options.submit)
