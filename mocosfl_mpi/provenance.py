"""What a run was and on what it ran: enough to repeat it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shlex
import sys

from mocosfl_mpi import __version__
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.environment import launcher
from mocosfl_mpi.config import Config, to_toml

LIBRARIES = ("numpy", "torch", "torchvision", "mpi4py", "h5py", "pydantic")


def header(
    config: Config, cluster: Cluster, preset: str, notes: tuple[str, ...], server_threads: int
) -> dict[str, str | int]:
    """Attributes of the run's file: software, machine, MPI, complete configuration and seed."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    started = launcher()
    return {
        "software_version": __version__,
        "versions": json.dumps({"python": platform.python_version(), **versions, "mpi": cluster.library()}),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": cluster.host_name,
        "ranks": cluster.size,
        "launcher": started.name if started else "none",
        "command": shlex.join(["mocosfl", *sys.argv[1:]]),
        "server_threads": server_threads,
        "host_threads": config.compute.host_threads,
        "method": config.method,
        "preset": preset,
        "seed": config.seed,
        "config": config.canonical(),
        "config_toml": to_toml(config),
        "config_hash": config.hash(),
        "notes": json.dumps(list(notes)),
    }
