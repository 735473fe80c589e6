"""Room that a run takes on the disk: its file, and a checkpoint."""

from __future__ import annotations

from mocosfl_mpi.chronicle import ages
from mocosfl_mpi.cost.flops import kinds_of_work
from mocosfl_mpi.meter import PHASES
from mocosfl_mpi.plan.experiment import Experiment
from mocosfl_mpi.record.attributes import run_attributes, software_versions
from mocosfl_mpi.record.layout import Size
from mocosfl_mpi.record.size import file_bytes

HEADER = 16 * 1024
"""Bytes of names, shapes and configuration in a checkpoint."""


def record_bytes(experiment: Experiment, ranks: int) -> int:
    """Bytes of ``run.h5`` at the end of the run."""
    config = experiment.config
    sizes: dict[str, Size] = {
        "client": config.client.count,
        "member": config.pool_size,
        "class": experiment.images.classes,
        "layer": experiment.network.cuts[0].layers,
        "rank": ranks,
        "phase": PHASES,
        "work": kinds_of_work(config),
        "age": ages(config),
    }
    attributes = run_attributes(
        config,
        preset="x" * 20,
        command="x" * 80,
        launcher="x" * 40,
        host="x" * 20,
        ranks=ranks,
        server_threads=1,
        host_threads=1,
        versions=software_versions("x" * 80),
    )
    every = config.evaluation.every
    rows = {
        "step": config.epochs * experiment.steps,
        "sync": config.epochs * experiment.syncs,
        "epoch": config.epochs,
        "evaluation": 1 + (config.epochs // every if every else 0),
        "session": 1,
    }
    return file_bytes(sizes, attributes, rows)


def checkpoint_bytes(experiment: Experiment) -> int:
    """Bytes of the whole trained state at the end: the server's, what clients share, and each client's own.

    And of what the server may have to replay.
    """
    config, network = experiment.config, experiment.network
    kinds = 2 * (1 + experiment.algorithm.server_copies(config)) if config.supervised else 3
    server = kinds * network.trunk.parameters + experiment.server_memory
    own = experiment.private * experiment.participants
    trained = (server + experiment.shared + own) * experiment.weight
    return trained + experiment.replay_bytes + 3 * 8 * config.client.count + HEADER
