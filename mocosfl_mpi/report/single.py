"""The page of one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mocosfl_mpi.record.standing import MEANINGS
from mocosfl_mpi.report import pictures, privacy
from mocosfl_mpi.report.common import again, album_remarks, duration, settings, warnings
from mocosfl_mpi.report.parts import Facts, Fold, Part, Section, Sheet
from mocosfl_mpi.report.pictures import Album
from mocosfl_mpi.report.reading import Reading, Seen
from mocosfl_mpi.report.results import published_table

_SAID = ("Progress", "File", "Experiment", "Computed")
"""Facts that stand elsewhere on the page."""


def lead(seen: Seen) -> str:
    """How far the run got, in a sentence."""
    summary = seen.summary
    done = f"{summary['epochs']} of {summary['epochs_planned']} epochs"
    if seen.standing == "complete":
        return f"{seen.facts['Progress']}."
    left = "" if seen.seconds_left is None else f" At the pace so far it needs {duration(seen.seconds_left)} more."
    return (
        f"{seen.standing.capitalize()} ({MEANINGS[seen.standing]}), with {done} in its file, which was last written "
        f"{duration(seen.idle_seconds)} ago.{left} This page shows what there is; make it again for more."
    )


def sections(reading: Reading, album: Album) -> Iterator[Section]:
    """From top to bottom."""
    (seen,) = reading.runs
    yield Section("warnings", "Warnings", list(warnings(reading)))
    yield Section("run", "What was run", list(_what(seen)))
    yield Section("results", "Results", [*seen.results, *published_table(album), *seen.health])
    yield Section("figures", "Figures", list(album.galleries(pictures.PROGRESS)))
    yield Section("cost", "Cost ledger of a simulated client", [*seen.ledger, *album.galleries(pictures.COST)])
    if privacy.attacked(seen.path.parent):
        audit = list(privacy.audit(seen.path.parent, brief=False))
        yield Section("privacy", "Privacy audit", [*album.galleries(pictures.PRIVACY), *audit])
    machine = Facts([("On", seen.facts["Computed"])])
    computation: list[Part] = [machine, *seen.computation, *album.galleries(pictures.COMPUTATION)]
    yield Section("computation", "This computation", [*computation, *album_remarks(album)])
    yield Section("provenance", "Provenance", [provenance(seen)])
    yield Section("reproduce", "Do it again", list(again(seen)))


def _what(seen: Seen) -> Iterator[Part]:
    yield Facts([(name, line) for name, line in seen.facts.items() if name not in _SAID])
    sheet = settings(seen, "Settings that differ from the defaults")
    yield Fold(f"{sheet.title} ({len(sheet.rows)})", [replace(sheet, title="")])


def provenance(seen: Seen) -> Sheet:
    """Which program made which bits of which experiment."""
    summary = seen.summary
    rows = [
        ["configuration, sha256", str(summary["config_hash"])],
        ["trained state, sha256", str(summary["state_sha256"] or "none before the end")],
        ["seed", str(summary["seed"])],
        ["started", str(summary["date"])],
        ["schema of the file", str(summary["schema_version"])],
        ["file", str(seen.path)],
        *([name, version] for name, version in seen.versions.items()),
    ]
    return Sheet("What determines the bits of the result", ["", "value"], rows, figures=False)
