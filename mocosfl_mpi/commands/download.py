"""``mocosfl download``: fetch a data set; no other command uses the network."""

from __future__ import annotations

import argparse
from pathlib import Path

from mocosfl_mpi.commands.common import DATA_VARIABLE, Subcommands, data_dir
from mocosfl_mpi.errors import BadInput


def add(commands: Subcommands) -> None:
    """Declare the command."""
    download = commands.add_parser(
        "download", help="fetch a data set through torchvision (the only command that uses the network)"
    )
    download.add_argument("source", choices=["cifar10", "cifar100", "fashion-mnist", "svhn"])
    download.add_argument("--data-dir", type=Path)
    download.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.data.sources import download

    folder = data_dir(options)
    if folder is None:
        raise BadInput(f"where to? give --data-dir DIR or set {DATA_VARIABLE}")
    download(options.source, folder)
    print(f"{options.source} lies in {folder}")
    return 0
