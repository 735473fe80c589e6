"""What pages of one run and of several share."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from mocosfl_mpi.figures.study import complete
from mocosfl_mpi.report.parts import Bullets, Code, Fold, Part, Sheet, Warnings, Words
from mocosfl_mpi.report.pictures import Album
from mocosfl_mpi.report.reading import Reading, Seen
from mocosfl_mpi.report.remarks import gather

NO_WARNING = "Nothing to warn of."
FEW = 6
"""Notes up to which they are shown at once."""


def warnings(reading: Reading) -> Iterator[Part]:
    """What cannot be read, warnings of all runs, then what the program remarked while it ran."""
    items: list[tuple[str, list[str]]] = [
        (f"{name} cannot be read and is not on this page: {text}", []) for name, text in reading.unreadable
    ]
    found = [(seen.name, remark) for seen in reading.runs for remark in seen.remarks]
    named = len(reading.runs) > 1
    items += gather(found, warning=True, named=named)
    yield Warnings(items) if items else Words(NO_WARNING)
    notes = gather(found, warning=False, named=named)
    lines = [("", text) for said, each in notes for text in (each or [said])]
    title = "Noted by the program while it ran"
    if len(lines) > FEW:
        yield Fold(f"{title} ({len(lines)})", [Bullets(lines)])
    elif lines:
        yield from (Words(f"{title}:"), Bullets(lines))


def album_remarks(album: Album) -> Iterator[Part]:
    """What is to be known of the figures, and which could not be drawn."""
    if album.remarks:
        yield Fold("Remarks on the figures", [Bullets([("", text) for text in album.remarks])])
    if album.missing:
        yield Fold("What could not be drawn, and why", [Bullets(album.missing)])


def settings(seen: Seen, title: str, without: Sequence[str] = ()) -> Sheet:
    """What the run's configuration has otherwise than the defaults."""
    defaults = complete({})
    rows = [
        [name, text(value), text(defaults.get(name))]
        for name, value in seen.settings.items()
        if name not in without and repr(value) != repr(defaults.get(name))
    ]
    return Sheet(title, ["setting", "value", "default"], rows, figures=False)


def text(value: Any) -> str:
    """A setting's value."""
    if value is None or value == "":
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value)) or "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def again(seen: Seen) -> Iterator[Part]:
    """How to do a run once more and to compare."""
    yield Code("The command that was given", seen.command)
    data = "" if seen.settings.get("data.source") == "embedded" else " --data-dir DATA"
    place = shlex.quote(str(seen.place))
    yield Code(
        "The same experiment again, from the configuration below as mine.toml; and whether the bits are the same",
        f"mocosfl run mine.toml -n {seen.summary['ranks']}{data} --out again\nmocosfl diff {place} again",
    )
    yield Fold("The whole configuration, as a TOML file", [Code("mine.toml", seen.toml)])


def duration(seconds: float) -> str:
    """Seconds for a person."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
