"""``mocosfl export``: what a run recorded, or the encoder that it trained, for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from mocosfl_mpi.commands.common import Subcommands

KINDS = {
    "csv": "tables, one for each set of axes",
    "parquet": "the same, with types and units",
    "tensorboard": "scalars over training steps",
    "torch": "the encoder, to be loaded by plain torch and torchvision code",
}


def add(commands: Subcommands) -> None:
    """Declare the command."""
    export = commands.add_parser(
        "export",
        help="a run's data or its encoder for other tools",
        description="Write "
        + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
        + ". Nothing is overwritten.",
    )
    export.add_argument("run", type=Path, metavar="RUN", help="a run's directory or its run.h5")
    export.add_argument("--to", required=True, choices=KINDS, help="which format")
    export.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="where to write")
    export.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.export.delivery import deliver

    make = _encoder if options.to == "torch" else _scalars if options.to == "tensorboard" else _tables
    for path in deliver(options.out, lambda folder: make(options, folder)):
        print(path)
    return 0


def _tables(options: argparse.Namespace, folder: Path) -> None:
    from mocosfl_mpi.export.delivery import needed
    from mocosfl_mpi.record.attack_schema import FILE_NAME
    from mocosfl_mpi.record.attacks import AttackRecord
    from mocosfl_mpi.record.reader import open_record, open_run

    with open_run(options.run) as run:
        try:
            from mocosfl_mpi.export.tables import write

            if options.to == "parquet":
                import pyarrow.parquet  # noqa: F401 - before anything is written
        except ImportError as error:
            raise needed("pandas" if options.to == "csv" else "pyarrow", options.to, error) from None
        write(run, folder, options.to)
        attacks = run.path.with_name(FILE_NAME)
    if attacks.exists():
        with open_record(attacks, AttackRecord) as record:
            write(record, folder, options.to, "attacks-")


def _scalars(options: argparse.Namespace, folder: Path) -> None:
    from mocosfl_mpi.errors import BadInput
    from mocosfl_mpi.export.delivery import needed
    from mocosfl_mpi.export.scalars import write
    from mocosfl_mpi.record.reader import open_run

    with open_run(options.run) as run:
        try:
            count = write(run, folder)
        except ImportError as error:
            raise needed("tensorboard", options.to, error) from None
        if not count:
            raise BadInput(f"{run.path} holds no row yet: there is nothing to export; wait for its first steps")


def _encoder(options: argparse.Namespace, folder: Path) -> None:
    from mocosfl_mpi.export.encoder import released
    from mocosfl_mpi.export.plain import write

    write(released(options.run), folder)
