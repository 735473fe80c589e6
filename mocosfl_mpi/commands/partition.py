"""``mocosfl partition``: who holds which classes."""

from __future__ import annotations

import argparse

from mocosfl_mpi.commands.common import Subcommands, add_configuration, configuration, data_dir


def add(commands: Subcommands) -> None:
    """Declare the command."""
    partition = commands.add_parser("partition", help="print who holds which classes, without training")
    add_configuration(partition)
    partition.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    from mocosfl_mpi.data.check import check
    from mocosfl_mpi.data.partition import counts, partition
    from mocosfl_mpi.data.picture import picture
    from mocosfl_mpi.data.sources import load
    from mocosfl_mpi.speaker import console
    from mocosfl_mpi.streams import Streams

    _, config = configuration(options)
    folder = data_dir(options)
    check(config.data, folder)
    streams = Streams(config.seed)
    data = load(config.data, folder, streams)
    parts = partition(
        config.partition, data.train.labels, config.client.count, data.class_count, streams, config.rich_clients
    )
    console().print(picture(counts(parts, data.train.labels, data.class_count), data.classes))
    return 0
