"""The ``mocosfl`` command: one subcommand a module, one message and an exit code for what it refuses."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from mocosfl_mpi import __version__
from mocosfl_mpi.comm.environment import LAST_WORDS, launcher
from mocosfl_mpi.commands import (
    attack,
    audit,
    completion,
    diff,
    doctor,
    download,
    export,
    grid,
    inspect,
    partition,
    plan,
    presets,
    pretrain,
    privacy_depth,
    recover,
    report,
    retime,
    run,
    slurm,
    watch,
)
from mocosfl_mpi.errors import BadInput, RunFailed

COMMANDS = (
    run,
    pretrain,
    plan,
    slurm,
    grid,
    presets,
    inspect,
    watch,
    report,
    attack,
    audit,
    privacy_depth,
    retime,
    export,
    diff,
    recover,
    partition,
    doctor,
    download,
    completion,
)
"""In the order of ``mocosfl --help``."""


def parser() -> argparse.ArgumentParser:
    """What ``mocosfl`` understands."""
    found = argparse.ArgumentParser(
        prog="mocosfl", description="Split-federated self-supervised learning over MPI, simulated exactly."
    )
    found.add_argument("--version", action="version", version=f"mocosfl {__version__}")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 (failure), 2 (bad input), or what the command defines."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    read = parser()
    options = read.parse_args(words, argparse.Namespace(words=words, parser=read))
    started = launcher()
    try:
        return int(options.action(options))
    except (BadInput, RunFailed) as error:
        if started is None or started.rank == 0:  # under a launcher every rank stands here; one speaks
            print(f"mocosfl: {error}", file=sys.stderr)
        else:
            time.sleep(LAST_WORDS)  # Open MPI ends all ranks with the first that exits so, and rank 0 has to speak
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
