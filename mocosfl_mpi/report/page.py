"""From runs to one HTML file that needs nothing beside itself."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl_mpi import __version__
from mocosfl_mpi.errors import BadInput

if TYPE_CHECKING:
    from markupsafe import Markup

    from mocosfl_mpi.report.reading import Seen

NAME = "report.html"
_NEEDED = ("jinja2", "matplotlib", "pandas")


@dataclass(frozen=True)
class Order:
    """What a person asks for."""

    paths: Sequence[Path]
    published: Path | None = None
    """A grid's description with published numbers."""
    title: str = ""


def check_libraries() -> None:
    """Refuse (BadInput) where the libraries of the extra are missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BadInput(f"reports need {', '.join(missing)}: pip install 'mocosfl-mpi[analysis]'")


def place(paths: Sequence[Path]) -> Path:
    """Where the page goes if nobody says: into the only directory given, else into the current one."""
    return paths[0] / NAME if len(paths) == 1 and paths[0].is_dir() else Path(NAME)


def report(order: Order) -> str:
    """The page.

    Raises
    ------
    BadInput
        None of the runs can be read, or published numbers do not belong to them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from mocosfl_mpi.report import several, single
    from mocosfl_mpi.report.pictures import Album
    from mocosfl_mpi.report.reading import read
    from mocosfl_mpi.report.results import numbers

    reading = read(order.paths)
    named = " ".join(shlex.quote(str(path)) for path in order.paths)
    album = Album([seen.path for seen in reading.runs], named, order.published or _beside(reading.runs))
    try:
        numbers(album)
    except BadInput:
        if order.published is not None:
            raise
        album.published = None  # the grid's numbers are of other runs
    alone = len(reading.runs) == 1
    if alone:
        (seen,) = reading.runs
        title, lead, found = seen.name, single.lead(seen), single.sections(reading, album)
        standing, subtitle = str(seen.standing), seen.facts["Method"]
    else:
        title = order.paths[0].resolve().name if len(order.paths) == 1 else f"{len(reading.runs)} runs"
        lead, found = several.lead(reading, album), several.sections(reading, album)
        done = all(seen.standing == "complete" for seen in reading.runs) and not reading.unreadable
        standing, subtitle = "complete" if done else "incomplete", ""
    done_epochs = sum(int(seen.summary["epochs"]) for seen in reading.runs)
    planned = sum(int(seen.summary["epochs_planned"] or 0) for seen in reading.runs)
    environment = Environment(
        loader=PackageLoader("mocosfl_mpi.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["ticks"] = _ticks
    return environment.get_template("report.html.j2").render(
        title=order.title or title,
        subtitle=subtitle,
        lead=lead,
        standing=standing,
        done=done_epochs,
        planned=planned,
        sections=list(found),
        made=datetime.now(UTC).astimezone().isoformat(sep=" ", timespec="seconds"),
        version=__version__,
    )


def _beside(runs: Sequence[Seen]) -> Path | None:
    """The published numbers that a grid has left beside its runs, if all are of one grid."""
    from mocosfl_mpi.grid.published import NAME as PUBLISHED

    places = {seen.place.resolve().parent / PUBLISHED for seen in runs}
    (place,) = places if len(places) == 1 else (None,)
    return place if place is not None and place.is_file() else None


def _ticks(text: str) -> Markup:
    """Text in which `backticks` set code; everything in it is escaped."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:  # one of them stands alone
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def write(text: str, path: Path) -> None:
    """Put the page in its place in one step. BadInput where that cannot be done."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except (OSError, UnicodeEncodeError) as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise BadInput(f"cannot write {path}: {error}; name another file with -o") from None
