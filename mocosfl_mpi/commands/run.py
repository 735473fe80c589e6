"""``mocosfl run``: validate, then become the launcher, or be a rank."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from mocosfl_mpi.comm.environment import LAUNCHED, launcher
from mocosfl_mpi.commands.common import Subcommands, add_configuration, configuration, data_dir
from mocosfl_mpi.config import Config
from mocosfl_mpi.errors import STOPPED, BadInput
from mocosfl_mpi.signals import asked, listen


def add(commands: Subcommands) -> None:
    """Declare the command."""
    run = commands.add_parser("run", help="run an experiment", description="Run an experiment into OUT/run.h5.")
    add_configuration(run)
    add_conduct(run)
    run.set_defaults(action=_run)


def add_conduct(run: argparse.ArgumentParser) -> None:
    """The arguments that say how a run is carried out: ranks, results, checkpoints."""
    run.add_argument(
        "-n", dest="ranks", type=int, metavar="RANKS", help="MPI ranks to start; 1 needs no launcher (default)"
    )
    run.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="directory for the results (default: runs/CONFIG-001, -002, …); a run that lies there is continued",
    )
    run.add_argument(
        "--resume",
        choices=["auto", "never", "must"],
        default="auto",
        help="continue the run in DIR: auto = if there is one (default), never = refuse it, must = nothing else",
    )
    run.add_argument(
        "--checkpoint-every",
        type=str,
        default="10min",
        metavar="N",
        help="10min (default), 2epochs, 500steps, or off = only at the end and when stopped",
    )
    run.add_argument(
        "--max-hours",
        type=float,
        metavar="H",
        help="stop in time with a checkpoint and exit code 75 (default: the end of the SLURM job)",
    )
    run.add_argument(
        "--patience",
        type=float,
        default=60.0,
        metavar="MINUTES",
        help="end the job when a rank has heard nothing from the others for so long (default 60; evaluations count)",
    )
    run.add_argument(
        "--keep-going",
        action="store_true",
        help="when a rank or its host dies, go on with the others from the newest checkpoint (needs Open MPI 5)",
    )
    run.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _run(options: argparse.Namespace) -> int:
    return carry_out(options, configuration)


def carry_out(options: argparse.Namespace, configure: Callable[[argparse.Namespace], tuple[str, Config]]) -> int:
    """Validate; then be a rank if a launcher started this process, else be the launcher.

    ``configure``: name and configuration of what is run.
    """
    started = launcher()
    if LAUNCHED in os.environ or started or options.ranks in (None, 1):
        listen()

    from mocosfl_mpi.cadence import Cadence
    from mocosfl_mpi.data.check import check_all
    from mocosfl_mpi.record.expert import locate

    name, config = configure(options)
    folder = data_dir(options)
    check_all(config, folder)
    locate(config)
    cadence = Cadence.parse(options.checkpoint_every)
    if options.max_hours is not None and not options.max_hours > 0:
        raise BadInput(f"--max-hours {options.max_hours}: expected a number above 0")
    if not options.patience > 0:
        raise BadInput(f"--patience {options.patience}: expected minutes above 0")
    if options.ranks is not None and options.ranks < 1:
        raise BadInput(f"-n {options.ranks}: at least one rank is needed; -n 1 computes everything in one process")
    if LAUNCHED in os.environ or started:
        if started and options.ranks not in (None, started.size):
            raise BadInput(
                f"-n {options.ranks} inside {started.name}, which started {started.size} ranks; leave -n out there"
            )
        from mocosfl_mpi.session import run_as_rank
        from mocosfl_mpi.simulation import Conduct

        conduct = Conduct(
            preset=name,
            out=options.out,
            data_dir=folder,
            quiet=options.quiet,
            resume=options.resume,
            cadence=cadence,
            max_hours=options.max_hours,
            patience=60.0 * options.patience,
            keep_going=options.keep_going,
        )
        return run_as_rank(config, conduct)

    from mocosfl_mpi.launch import start
    from mocosfl_mpi.record.output import free_directory, prepare_output

    out = options.out or free_directory(name)
    prepare_output(out, options.resume)
    words = [*options.words, *([] if options.out else ["--out", str(out)])]
    code = start(words, options.ranks or 1, keep_going=options.keep_going)
    # An mpiexec that is asked to stop its ranks while they end by themselves may report a failure that was none.
    return 0 if asked() and code not in (0, STOPPED) and completed(Path(out)) else code


def completed(out: Path) -> bool:
    """Whether the run in ``out`` has reached its end."""
    from mocosfl_mpi.record.reader import open_run

    try:
        with open_run(out) as run:
            return run.completed
    except BadInput:
        return False
