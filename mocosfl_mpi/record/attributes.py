"""The root attributes of a run's file: which experiment this is, and on what it ran."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata

import h5py

from mocosfl_mpi import __version__
from mocosfl_mpi.config import Config, to_toml
from mocosfl_mpi.record.schema import SCHEMA, SCHEMA_VERSION


def software_versions(mpi_library: str) -> dict[str, str]:
    """Versions of what determines the bits of a result, read without importing it."""
    versions = {"python": platform.python_version(), "mpi": " ".join(mpi_library.replace("\0", "").split())}
    for name in ("numpy", "torch", "torchvision", "mpi4py", "h5py"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
    versions["hdf5"] = h5py.version.hdf5_version
    return versions


def run_attributes(
    config: Config,
    *,
    preset: str,
    command: str,
    launcher: str,
    host: str,
    ranks: int,
    server_threads: int,
    host_threads: int,
    versions: Mapping[str, str],
    notes: Sequence[str] = (),
) -> dict[str, str | int]:
    """All root attributes for ``Recorder.create``; ``notes`` are warnings in plain words."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "software": "mocosfl_mpi",
        "software_version": __version__,
        "versions": json.dumps(dict(versions)),
        "date": datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
        "host": host,
        "ranks": ranks,
        "launcher": launcher,
        "command": command,
        "server_threads": server_threads,
        "host_threads": host_threads,
        "method": config.method,
        "preset": preset,
        "seed": config.seed,
        "config": config.canonical(),
        "config_toml": to_toml(config),
        "config_hash": config.hash(),
        "notes": json.dumps(list(notes)),
    }
