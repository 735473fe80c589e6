"""``mocosfl doctor``: is this machine ready for a run?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mocosfl_mpi.comm.environment import launcher
from mocosfl_mpi.commands.common import DATA_VARIABLE, Subcommands, data_dir
from mocosfl_mpi.errors import FAILURE, BadInput


def add(commands: Subcommands) -> None:
    """Declare the command."""
    doctor = commands.add_parser(
        "doctor", help="whether this machine is ready for a run (exit 0), or what is to be mended (1)"
    )
    doctor.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where results shall lie")
    doctor.add_argument("-n", dest="ranks", type=int, default=2, metavar="RANKS", help="MPI ranks wanted (default: 2)")
    doctor.add_argument("--data-dir", type=Path, help=f"where data sets lie (default: ${DATA_VARIABLE})")
    doctor.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    doctor.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.doctor.examine import examine, line
    from mocosfl_mpi.doctor.finding import Patient
    from mocosfl_mpi.speaker import console

    if options.ranks < 1:
        raise BadInput(f"-n {options.ranks}: at least one rank is needed")
    if started := launcher():
        raise BadInput(f"mocosfl doctor starts ranks itself; call it without {started.name}")
    patient = Patient(options.out, options.ranks, data_dir(options))
    findings = {}
    for name, finding in examine(patient):
        findings[name] = finding
        if not options.json:
            console().print(line(name, finding), soft_wrap=True)
    if options.json:
        print(json.dumps({name: asdict(finding) for name, finding in findings.items()}))
    return FAILURE if any(finding.status == "failure" for finding in findings.values()) else 0
