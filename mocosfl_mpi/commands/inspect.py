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
    inspect.add_argument(
        "run", type=Path, metavar="RUN", help="a run's directory or its run.h5; or an expert's file beside its run"
    )
    inspect.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    inspect.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.record.reader import open_run
    from mocosfl_mpi.record.show import show
    from mocosfl_mpi.speaker import console

    with open_run(_run_of(options.run)) as run:
        plan = _planned(run) if run.completed else None
        if options.json:
            print(json.dumps(run.summary() | {"plan": plan}))
        else:
            show(run, console())
            if plan:
                from mocosfl_mpi.plan.compare import actual, render

                console().print(render(plan, actual(run)), "")
    return 0


def _run_of(path: Path) -> Path:
    """The run to show: of an expert's file the one that has written it, which lies beside it. BadInput without one."""
    from mocosfl_mpi.record.expert import read
    from mocosfl_mpi.record.schema import FILE_NAME

    if path.suffix != ".safetensors" or not path.is_file():
        return path
    facts, beside = read(path), path.parent / FILE_NAME
    if not beside.exists():
        raise BadInput(
            f"{path} is an expert (method {facts.fact('method')}, epoch {facts.fact('epoch')}, similarity to what its "
            f"own attacker draws {facts.fact('attacker_ssim')}), and the run of which it is, {beside}, is not there; "
            f"bring it back to see more"
        )
    return path.parent


def _planned(run: Run) -> dict[str, Any] | None:
    """The plan of the run; None where it cannot be told, which is no reason to hide the run."""
    try:
        from mocosfl_mpi.plan.compare import planned
    except BadInput:  # MPI cannot be loaded on this machine
        return None
    return planned(run)
