"""Which run lies in the output directory, and whether this command may continue it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.config import Config
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.record.carry import rows_or_refuse
from mocosfl_mpi.record.checkpoint import DIRECTORY, Checkpoint, newest, remove_unfinished
from mocosfl_mpi.record.output import Lock, Resume, free_directory, give_back, prepare_output
from mocosfl_mpi.record.reader import Run, open_run
from mocosfl_mpi.record.schema import FILE_NAME

AUTOMATIC = ("compute.precision", "compute.backend")
"""Settings whose `auto` means, in a run that goes on, what it meant at its beginning."""


@dataclass
class Found:
    """What rank 0 found and holds: the lock on the directory, the run's file, its newest good checkpoint."""

    lock: Lock
    run: Run | None = None
    saved: Checkpoint | None = None
    notes: tuple[str, ...] = ()


class Resumption:
    """The output directory of this command, known to every rank; ``found`` on rank 0 only. Collective.

    Raises
    ------
    BadInput
        On every rank: the directory cannot be used, another run is at work in it, it holds another experiment
        (the settings that differ are listed), or its files are damaged beyond the last two checkpoints.
    """

    def __init__(self, config: Config, cluster: Cluster, out: Path | None, preset: str, resume: Resume) -> None:
        self.out = Path(cluster.broadcast_json(str(out or free_directory(preset)) if cluster.serves else None))
        self.found = cluster.root_decides(lambda: self._look(config, resume))
        run, saved = (self.found.run, self.found.saved) if self.found else (None, None)
        facts = {
            "completed": run is not None and run.completed,
            "compute": run.attrs["config"]["compute"] if run else {},
            "position": [saved.manifest.epoch, saved.manifest.step] if saved else None,
        }
        facts = cluster.broadcast_json(facts)
        self.completed: bool = facts["completed"]
        self.position: tuple[int, int] | None = tuple(facts["position"]) if facts["position"] else None
        """Epoch and step to go on with; None = from the beginning."""
        compute = facts["compute"] or config.compute.model_dump()
        self.config = config.computed(
            *(compute[key] if getattr(config.compute, key) == "auto" else getattr(config.compute, key)
              for key in ("precision", "backend"))
        )  # fmt: skip

    def _look(self, config: Config, resume: Resume) -> Found:
        prepare_output(self.out, resume)
        found = Found(Lock(self.out))
        try:
            remove_unfinished(self.out / DIRECTORY)
            found.saved, warnings = newest(self.out / DIRECTORY)
            found.notes = tuple(f"Warning: {warning}." for warning in warnings)
            if (self.out / FILE_NAME).exists():
                found.run = open_run(self.out)
                refuse_another(found.run, config)
            refuse_mixture(self.out / FILE_NAME, found.run, found.saved)
        except BadInput:
            self.release(found)
            raise
        return found

    def release(self, found: Found | None = None) -> None:
        """Let go of the directory; it disappears again if nothing was left in it."""
        found = found or self.found
        if found is not None:
            if found.run is not None:
                found.run.close()
            found.lock.release()
            give_back(self.out)

    def earlier(self) -> tuple[Run, Mapping[str, int]] | None:
        """The file to continue and how many of its rows (rank 0)."""
        if self.found is None or self.found.run is None:
            return None
        return self.found.run, self.found.saved.manifest.rows if self.found.saved else {}


def refuse_mixture(path: Path, run: Run | None, saved: Checkpoint | None) -> None:
    """Refuse a checkpoint without the file that belongs to it (BadInput)."""
    if saved is None:
        return
    if run is None:
        raise BadInput(
            f"{saved.path} is a checkpoint and {path} is gone: bring it back, or remove "
            f"{saved.path.parent} to begin again"
        )
    if saved.manifest.config_hash != run.attrs["config_hash"]:
        raise BadInput(
            f"the checkpoint {saved.path} belongs to another experiment than {path}: bring back the one that does, or "
            f"remove {saved.path.parent} to begin again"
        )
    rows_or_refuse(run, saved.manifest.rows)


def refuse_another(run: Run, config: Config) -> None:
    """Refuse a run of another configuration (BadInput, with every setting that differs)."""
    given = json.loads(config.canonical())
    lines = [
        f"{name} was {stored} and is {now}"
        for name, stored, now in _differences("", run.attrs["config"], given)
        if not (name in AUTOMATIC and now == '"auto"')
    ]
    if lines:
        raise BadInput(
            f"{run.path} is another experiment, and results are never overwritten: {'; '.join(lines)}. Name another "
            f"directory with --out, or give the settings with which it was started"
        )


def _differences(name: str, stored: Any, given: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted(stored.keys() | given.keys()):
            yield from _differences(f"{name}.{key}".lstrip("."), stored.get(key), given.get(key))
    elif stored != given or type(stored) is not type(given):
        yield name, json.dumps(stored), json.dumps(given)
