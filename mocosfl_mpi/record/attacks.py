"""What came of attacks on a run: rows appended to ``RUN/attacks.h5`` as they come, and read back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mocosfl_mpi import __version__
from mocosfl_mpi.config import Config
from mocosfl_mpi.record.attack_schema import ATTACKS, ENTRIES, FILE_NAME, FLOORS, METRICS
from mocosfl_mpi.record.reader import Record, open_record
from mocosfl_mpi.record.writer import Writer

PICTURES = "attacks"
"""Directory of sample pictures, beside the file."""


@dataclass(frozen=True)
class Outcome:
    """One row: a job and what came of it."""

    key: str
    state: str
    steps: int
    trained: bool
    attack: str
    kind: str
    adversary: str
    adaptive: int
    """1: it knows the defence, 0: it does not, -1: there is none."""
    protocol: str
    client: int
    images: int
    effort: float
    seed: int
    seconds: float
    macs: float = math.nan
    reason: str = ""
    """Why it cannot be mounted here; empty = it was."""
    notes: Mapping[str, float] = field(default_factory=dict)
    picture: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By metric; those that do not apply are left out."""
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By floor and metric."""


class AttackWriter(Writer):
    """The open file of attacks; use ``open_for_more``."""

    form = ATTACKS

    def add(self, outcome: Outcome) -> None:
        """Append one row, safely in the file on return. KeyError for a metric or floor that the schema lacks."""
        scores, floors = np.full(len(METRICS), np.nan), np.full((len(FLOORS), len(METRICS)), np.nan)
        for metric, value in outcome.scores.items():
            scores[list(METRICS).index(_known(metric, METRICS))] = value
        for floor, values in outcome.floors.items():
            for metric, value in values.items():
                floors[list(FLOORS).index(_known(floor, FLOORS)), list(METRICS).index(_known(metric, METRICS))] = value
        row: dict[str, npt.ArrayLike] = {"scores/value": scores, "scores/floor": floors}
        for name in ENTRIES:
            if name.startswith("jobs/"):
                row[name] = getattr(outcome, name.removeprefix("jobs/"))
        row["jobs/notes"] = notes_text(outcome.notes)
        row["jobs/reason"] = clipped(outcome.reason, ENTRIES["jobs/reason"].width)
        self.append("job", row)
        self.flush()


class AttackRecord(Record):
    """A file of attacks, open for reading."""

    form = ATTACKS

    def outcomes(self) -> list[Outcome]:
        """All rows. BadInput where one is damaged."""
        columns = {name: self[name].tolist() for name in ENTRIES if ENTRIES[name].growing}
        metrics, floors = self["metric"].tolist(), self["floor"].tolist()
        found = []
        with self._damage():
            for number in range(self.rows["job"]):
                row = {name: values[number] for name, values in columns.items()}
                values = {name.removeprefix("jobs/"): row[name] for name in row if name.startswith("jobs/")}
                values["trained"], values["notes"] = bool(values["trained"]), json.loads(values["notes"])
                scores = _finite(metrics, row["scores/value"])
                below = {f: _finite(metrics, part) for f, part in zip(floors, row["scores/floor"], strict=True)}
                found.append(Outcome(**values, scores=scores, floors={f: v for f, v in below.items() if v}))
        return found


def read_outcomes(directory: Path) -> list[Outcome]:
    """All rows of the file in a run's directory; none where there is no file yet. BadInput where it is damaged."""
    if not (directory / FILE_NAME).exists():
        return []
    with open_record(directory, AttackRecord) as record:
        return record.outcomes()


def open_for_more(directory: Path, attributes: Mapping[str, str | int]) -> AttackWriter:
    """The file in a run's directory, with the rows that it has, open for more. Raises what ``Writer.create`` does.

    A new file takes the old one's place in one step, so that a kill leaves one of them, and a file of an earlier minor
    version gets the axes of this one.
    """
    path = directory / FILE_NAME
    if not path.exists():
        return AttackWriter.create(path, {}, attributes, {})
    with open_record(path, AttackRecord) as earlier:
        return AttackWriter.create(path, {}, attributes, {}, (earlier, earlier.rows))


def attack_attributes(
    config: Config,
    *,
    command: str,
    launcher: str,
    host: str,
    ranks: int,
    threads: int,
    versions: Mapping[str, str],
) -> dict[str, str | int]:
    """All root attributes of a file of attacks on a run with this configuration."""
    return {
        "schema": ATTACKS.schema,
        "schema_version": ATTACKS.version,
        "software": "mocosfl_mpi",
        "software_version": __version__,
        "versions": json.dumps(dict(versions)),
        "date": datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
        "host": host,
        "ranks": ranks,
        "launcher": launcher,
        "command": command,
        "threads": threads,
        "config": config.canonical(),
        "config_hash": config.hash(),
    }


def notes_text(notes: Mapping[str, float]) -> str:
    """Notes as JSON, as many of them as there is room for; numbers that JSON lacks are left out."""
    kept: dict[str, float] = {}
    for name, value in notes.items():
        longer = kept | {name: value}
        if math.isfinite(value) and len(json.dumps(longer)) <= ENTRIES["jobs/notes"].width:
            kept = longer
    return json.dumps(kept)


def clipped(text: str, width: int) -> str:
    """At most ``width`` bytes of a text."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= width else data[: width - 3].decode("utf-8", "ignore") + "…"


def _known(name: str, names: Mapping[str, object]) -> str:
    if name not in names:
        raise KeyError(f"{name!r} is not in record/attack_schema.py: {', '.join(names)}")
    return name


def _finite(names: list[str], values: list[float]) -> dict[str, float]:
    return {name: value for name, value in zip(names, values, strict=True) if math.isfinite(value)}
