"""Figures as text: tables, units, and what comes out of a file made harmless."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def section(title: str, *parts: RenderableType) -> RenderableType:
    """A title over its parts."""
    return Group(Text(title, style="bold"), *parts)


def figures(*columns: str) -> Table:
    """A table of figures: names at the left, ``columns`` at the right."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", header_style="dim")
    return table


def clean(text: object) -> Text:
    """Text from a file without markup and terminal control sequences."""
    return Text("".join(letter if letter.isprintable() else "?" for letter in str(text)))


def size(count: float) -> str:
    """Bytes in binary units: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return f"{count:,.1f} TiB"


def operations(count: float) -> str:
    """FLOPs in powers of ten: ``1.5 GFLOP``."""
    for unit in ("FLOP", "kFLOP", "MFLOP", "GFLOP"):
        if count < 1000:
            return f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TFLOP"


def number(value: float | None, digits: int, signed: bool = False) -> str:
    """With ``digits`` behind the point, or a dash where it is not known."""
    return "–" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    """``mean ± standard deviation`` (n - 1), the mean alone of one value, a dash of none; ``sign`` "+" shows a plus."""
    if not values:
        return "–"
    text = f"{statistics.fmean(values):{sign}.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def percent(share: object) -> str:
    """A share as a configuration has it."""
    return f"{100 * share:g} %" if isinstance(share, float) else "?"
