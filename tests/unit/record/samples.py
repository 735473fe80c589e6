"""A small run, whose rows are numbers derived from their position so that every one can be checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mocosfl_mpi.config import Config, parse
from mocosfl_mpi.record.attributes import run_attributes, software_versions
from mocosfl_mpi.record.layout import row_shape, scale_values
from mocosfl_mpi.record.schema import COMMITTED, ENTRIES, WORK, present
from mocosfl_mpi.record.writer import Recorder

SIZES = {
    "client": 6,
    "member": 4,
    "class": ["T-shirt", "sandale étroite"],
    "layer": ["stem.weight", "block1.weight", "block1.bias"],
    "rank": 2,
    "phase": ["client_forward", "server"],
    "age": 5,
    "work": WORK,
}
FURTHER = {
    "label_shares": [0.01, 0.1],
    "published_probe": True,
    "fine_tune_share": 0.5,
    "transfer": "svhn",
    "per_client": True,
}
"""Everything that a run may ask for, so that its file has every dataset of the schema but those of other methods."""
CONFIG = {
    "method": "fedavg",
    "epochs": 3,
    "client": {"count": 6, "sampling_ratio": 0.7, "rich_share": 0.5, "rich_batch_factor": 2},
    "seed": 7,
    "reliability": {"client_dropout": 0.1},
    "evaluation": FURTHER,
}
PRESENT = {name: ENTRIES[name] for name in present(CONFIG) if name in ENTRIES}
STATE = "0123456789abcdef" * 4


def create(
    path: Path, sizes: dict | None = None, config: Config | None = None, earlier: tuple | None = None, **changes: object
) -> Recorder:
    sizes, config = {**SIZES, **(sizes or {})}, config or parse(CONFIG, "test")
    attributes = run_attributes(
        config,
        preset="smoke",
        command="mocosfl run smoke",
        launcher="MPICH",
        host="node1",
        ranks=2,
        server_threads=2,
        host_threads=1,
        versions=software_versions("MPICH 5.0"),
        notes=["an unofficial file"],
    )
    attributes.update(changes)
    return Recorder.create(path, sizes, attributes, fixed(sizes, config), earlier)


def there(config: Config | None) -> set:
    """What is in the file of a run with this configuration."""
    return set(present(json.loads(config.canonical()) if config else CONFIG))


def fixed(sizes: dict, config: Config | None = None) -> dict:
    scales = scale_values(sizes, CONFIG)
    values = {
        name: np.arange(np.prod(row_shape(entry, scales), dtype=int)).reshape(row_shape(entry, scales)) + 1
        for name, entry in ENTRIES.items()
        if entry.when == "fixed" and name != COMMITTED and name in there(config)
    }
    return values | {"ranks/host": ["node1", "node-zwei-ü", "node3", ""][: len(scales["rank"])]}


def row(dim: str, number: int, sizes: dict | None = None, config: Config | None = None) -> dict:
    """Row ``number``: every value of it is determined by name order, row and place."""
    scales = scale_values({**SIZES, **(sizes or {})}, CONFIG)
    values = {}
    for place, (name, entry) in enumerate(ENTRIES.items()):
        if entry.growing == dim and name in there(config):
            shape = row_shape(entry, scales)
            base = np.arange(np.prod(shape, dtype=int)).reshape(shape) + 1000 * number + place
            values[name] = {"i": base, "u": base % 2}.get(np.dtype(entry.dtype).kind, base / 8)
    return values
