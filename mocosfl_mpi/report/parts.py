"""What a page is made of; the template has a macro for each ``kind``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Tone = str
"""`good`, `bad` or nothing."""


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar = "words"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading below that of the section; ``level`` from 3 on."""

    kind: ClassVar = "heading"
    level: int
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list; a first part of an item, if any, is set in bold."""

    kind: ClassVar = "bullets"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Facts:
    """Names and what is to be said of each."""

    kind: ClassVar = "facts"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Sheet:
    """A table; the first cell of a row is its name, the others are at the right where ``figures``."""

    kind: ClassVar = "sheet"
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: bool = True
    remarks: Sequence[str] = ()
    tones: Sequence[Tone] = ()
    """One for each row, or none at all."""
    links: Sequence[str] = ()
    """Where the name of each row leads, or none at all."""


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, and the numbers that it shows."""

    kind: ClassVar = "picture"
    source: str
    text: str
    """In place of the picture, for who cannot see it."""
    caption: str
    numbers: Sheet | None = None
    pixels: bool = False
    """A few large pixels, which stay sharp."""


@dataclass(frozen=True)
class Gallery:
    """The pictures that answer one question, with what to look for."""

    kind: ClassVar = "gallery"
    question: str
    look: str
    bear: str
    pictures: Sequence[Picture]
    command: str
    """What draws them as files."""
    folded: bool = False
    """Shown on demand."""


@dataclass(frozen=True)
class Code:
    """Text for a terminal or a file."""

    kind: ClassVar = "code"
    label: str
    text: str


@dataclass(frozen=True)
class Fold:
    """What is shown on demand."""

    kind: ClassVar = "fold"
    title: str
    parts: Sequence[Part]
    anchor: str = ""


@dataclass(frozen=True)
class Warnings:
    """Warnings, each with the runs that it is about."""

    kind: ClassVar = "warnings"
    items: Sequence[tuple[str, Sequence[str]]]
    """What is wrong, and the same in detail run by run, if there is more to say."""


Part = Words | Heading | Bullets | Facts | Sheet | Picture | Gallery | Code | Fold | Warnings


@dataclass(frozen=True)
class Section:
    """A section of the page, with its place in the navigation."""

    anchor: str
    title: str
    parts: Sequence[Part]


def sheets(shown: RenderableType) -> Iterator[Sheet]:
    """The tables that ``record.show`` prints, with their titles above and remarks below."""
    if isinstance(shown, Padding):
        yield from sheets(shown.renderable)
    elif isinstance(shown, Group):
        remarks = [part.plain for part in shown.renderables[1:] if isinstance(part, Text)]
        first = shown.renderables[0] if shown.renderables else ""
        name = first.plain if isinstance(first, Text) else str(first)
        tables = [part for part in shown.renderables if isinstance(part, Table)]
        for table in tables:
            header = [_plain(column.header) for column in table.columns]
            columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
            rows = [list(row) for row in zip(*columns, strict=True)]
            yield Sheet(name, header, rows, table.columns[-1].justify == "right", remarks)
        if not tables:
            yield Sheet(name, [], [], remarks=remarks)


def _plain(text: RenderableType) -> str:
    plain = text.plain if isinstance(text, Text) else str(text)
    return f"of which {plain.strip()}" if plain.startswith("  ") else plain.strip()
