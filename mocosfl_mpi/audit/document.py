"""A page in parts, as HTML that needs nothing beside itself, and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; } .wide { overflow-x: auto; }
th, td { border: 1px solid #ccc; padding: 0.25rem 0.6rem; text-align: left; vertical-align: top; }
th { background: #f2f2f2; } figure { margin: 1rem 0; } img { max-width: 100%; image-rendering: pixelated; }
figcaption { font-size: 0.9rem; color: #444; } .good { background: #e3f3e3; } .bad { background: #fbe3e0; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e6e6e6; } th { background: #2a2a2a; }
th, td { border-color: #444; } figcaption { color: #bbb; }
.good { background: #1d3a1d; } .bad { background: #4a1f1a; } }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list; a first part of an item, if any, is set in bold."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table; ``verdicts`` colours its rows: True = good, False = bad, None = neither."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[bool | None] = ()


@dataclass(frozen=True)
class Picture:
    """A PNG in a file; the HTML carries it along, Markdown points to it."""

    path: Path
    where: str
    """Its path from the page."""
    caption: str


Part = Heading | Paragraph | Bullets | Table | Picture


def html(parts: Sequence[Part]) -> str:
    """One page without scripts, which loads nothing."""
    title = next((part.text for part in parts if isinstance(part, Heading)), "")
    body = "\n".join(line for part in parts for line in _html(part))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def markdown(parts: Sequence[Part]) -> str:
    """The same as Markdown."""
    return "\n".join(line for part in parts for line in (*_markdown(part), ""))


def _html(part: Part) -> Iterator[str]:
    if isinstance(part, Heading):
        yield f"<h{part.level}>{escape(part.text)}</h{part.level}>"
    elif isinstance(part, Paragraph):
        yield f"<p>{escape(part.text)}</p>"
    elif isinstance(part, Bullets):
        items = (
            f"<strong>{escape(first)}</strong> {escape(rest)}" if first else escape(rest) for first, rest in part.items
        )
        yield from ("<ul>", *(f"<li>{item}</li>" for item in items), "</ul>")
    elif isinstance(part, Picture):
        data = base64.b64encode(part.path.read_bytes()).decode()
        caption = escape(part.caption)
        yield f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        yield f"<figcaption>{caption}</figcaption></figure>"
    else:
        yield '<div class="wide"><table>'
        yield f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in part.header)}</tr>"
        for number, row in enumerate(part.rows):
            verdict = part.verdicts[number] if part.verdicts else None
            colour = {True: ' class="good"', False: ' class="bad"', None: ""}[verdict]
            yield f"<tr{colour}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        yield "</table></div>"


def _markdown(part: Part) -> Iterator[str]:
    if isinstance(part, Heading):
        yield f"{'#' * part.level} {part.text}"
    elif isinstance(part, Paragraph):
        yield part.text
    elif isinstance(part, Bullets):
        yield from (f"- **{first}** {rest}" if first else f"- {rest}" for first, rest in part.items)
    elif isinstance(part, Picture):
        yield f"![{part.caption}]({part.where})"
    else:
        for row in (part.header, ["-"] * len(part.header), *part.rows):
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
