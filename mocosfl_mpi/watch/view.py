"""Runs on a terminal: one as a sheet, several as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mocosfl_mpi.record.figures import clean, number
from mocosfl_mpi.speaker import clock
from mocosfl_mpi.watch.curves import bars
from mocosfl_mpi.watch.facts import counts, facts, idle, knn, latest, remarks, times
from mocosfl_mpi.watch.glance import (
    COMPLETE,
    GONE,
    KILLED,
    MISSING,
    RUNNING,
    STARTING,
    STATES,
    STOPPED,
    UNREADABLE,
    Glance,
)

STYLES = {
    COMPLETE: "green", RUNNING: "bold cyan", STARTING: "cyan", STOPPED: "yellow", KILLED: "bold red", MISSING: "dim",
    GONE: "red", UNREADABLE: "bold red",
}  # fmt: skip
_URGENCY = {
    state: place
    for place, state in enumerate((UNREADABLE, KILLED, GONE, STOPPED, RUNNING, STARTING, MISSING, COMPLETE))
}
"""What a person wants to see first where there is no room for everything."""
_CURVE, _SMALL_CURVE, _BAR = 28, 8, 40
_WIDE = 100
"""Columns from which on there is room for what figures mean."""
_AROUND = 8
"""Lines of a terminal beside the rows of a table."""


def view(glances: Sequence[Glance], width: int, height: int | None = None) -> RenderableType:
    """The sheet of one run or the table of several, warnings below, for a console of so many columns and lines.

    With no ``height`` everything is shown.
    """
    if len(glances) == 1:
        return Group(*_sheet(glances[0], explained=width >= _WIDE), *_remarks(glances))
    remarked = list(_remarks(glances))
    room = None if height is None else max(3, height - _AROUND - 2 * len(remarked))
    return Group(*_table(glances, room), *remarked)


def _sheet(glance: Glance, *, explained: bool) -> Iterator[RenderableType]:
    name = clean(glance.label)
    name.stylize("bold")
    yield Text.assemble(name, "  ", (glance.state, STYLES[glance.state]))
    content = glance.content
    if content is None:
        yield Text(STATES[glance.state], style="dim")
        return
    summary = content.summary
    what = f"{summary['preset']}: {summary['method']}, seed {summary['seed']}, {summary['ranks']} rank(s)"
    yield clean(f"{what}; {STATES[glance.state]}")
    head, share = Table.grid(padding=(0, 2)), glance.share or 0.0
    head.add_row(ProgressBar(total=1.0, completed=share, width=_BAR), f"{100 * share:.0f} %", glance.progress)
    yield Padding(head, (1, 0, 0, 0))
    yield Padding(Text(times(glance)), (0, 0, 1, 0))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for fact in facts(content):
        table.add_row(fact.name, bars(fact.curve, _CURVE), fact.value, fact.meaning if explained else "")
    yield table


def _table(glances: Sequence[Glance], room: int | None) -> Iterator[RenderableType]:
    shown = list(glances)
    if room is not None and len(shown) > room:
        shown = sorted(glances, key=lambda glance: _URGENCY[glance.state])[:room]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "state", "done", "left", "loss", "kNN %", "divergence", "distance", "idle", "!"):
        left = name in ("run", "state", "loss", "kNN %")
        table.add_column(name, header_style="dim", justify="left" if left else "right", no_wrap=name != "run")
    for glance in shown:
        table.add_row(clean(glance.label), Text(glance.state, style=STYLES[glance.state]), *_cells(glance))
    yield Text(f"{len(glances)} runs: {counts(glances)}", style="bold")
    yield table
    if len(shown) < len(glances):
        hidden = [glance for glance in glances if glance not in shown]
        yield Text(f"… and {len(hidden)} more, for which there is no room: {counts(hidden)}", style="dim")


def _cells(glance: Glance) -> Iterator[str]:
    content = glance.content
    if content is None:
        yield from [""] * 7
    else:
        summary = content.summary
        loss = number(latest(content.loss, summary["loss"]), 3)
        yield f"{100 * (glance.share or 0.0):.0f} %"
        yield "" if glance.left is None else clock(glance.left)
        yield f"{bars(content.loss, _SMALL_CURVE):<{_SMALL_CURVE}} {loss}"
        yield f"{bars(content.knn, _SMALL_CURVE):<{_SMALL_CURVE}} {number(knn(content), 1)}"
        yield number(summary["divergence_online_mean"], 3)
        yield number(summary["online_momentum_distance"], 4)
        yield idle(content)
    yield str(len(glance.warnings)) if glance.warnings else ""


def _remarks(glances: Sequence[Glance]) -> Iterator[RenderableType]:
    for kind, text, of in remarks(glances):
        title = f"{kind}{f' ({of})' if of else ''}: "
        style = "bold" if kind == "Note" else "bold yellow"
        yield Padding(Text.assemble((title, style), clean(text)), (1, 0, 0, 0))
