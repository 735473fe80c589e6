"""One look for all figures: a paper's column wide, readable in grey and by the colour-blind, units on every axis.

Colours are those of Okabe and Ito (2008); who sees no colours has markers, line styles and hatches instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

COLUMN = 3.3
"""Width of a figure, inches: one column of a two-column page."""
COLOURS = ("#000000", "#E69F00", "#0072B2", "#CC79A7", "#009E73", "#56B4E9", "#D55E00", "#F0E442")
"""Black, orange, blue, purple, green, sky blue, vermilion, yellow: neighbours differ in grey too."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "||||", "++++", "oooo", "**")
GREY = "#777777"
MANY = 8
"""A line of more points has its marker at some of them only."""
BANDS = 4
"""Groups up to which bands can be told apart; the spread of more stands in the CSV."""
FEW = 4
"""Fewer points are joined by a thin line and have error bars: nothing is known of what lies between them."""

_SETTINGS: dict[Any, Any] = {
    "font.size": 7.0, "axes.labelsize": 7.0, "axes.titlesize": 7.0, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5,
    "legend.fontsize": 6.0, "legend.frameon": False, "legend.handlelength": 2.6, "legend.columnspacing": 1.2,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "lines.linewidth": 1.1,
    "lines.markersize": 3.2, "hatch.linewidth": 0.5, "errorbar.capsize": 1.5, "figure.dpi": 100.0, "savefig.dpi": 300.0,
    "axes.titlelocation": "left", "image.cmap": "cividis", "pdf.fonttype": 42, "svg.hashsalt": "mocosfl",
    "axes.formatter.limits": (-3, 4), "axes.formatter.use_mathtext": True,
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """How one group of runs looks."""

    colour: str
    marker: str
    line: Any


@contextmanager
def look() -> Iterator[None]:
    """The settings of matplotlib under which a figure is made and saved."""
    with mpl.rc_context(_SETTINGS):
        yield


def marks(arms: Sequence[str], steps: Sequence[str]) -> tuple[list[Mark], dict[str, Mark]]:
    """Marks for groups that have an arm each (what is compared) and a step (a number that is swept over), and a legend.

    Where there are few of both, colour and marker tell the arm, and the line style tells the step. Otherwise every
    group has colour, marker and line style of its own.
    """
    own_arms, own_steps = list(dict.fromkeys(arms)), list(dict.fromkeys(steps))
    if 1 < len(own_steps) <= len(LINES) and 1 < len(own_arms) < len(COLOURS):
        places = [(own_arms.index(arm), own_steps.index(step)) for arm, step in zip(arms, steps, strict=True)]
        key = {arm: Mark(COLOURS[place], MARKERS[place], "-") for place, arm in enumerate(own_arms)}
        key |= {step: Mark(GREY, "", LINES[place]) for place, step in enumerate(own_steps)}
        return [Mark(COLOURS[arm], MARKERS[arm], LINES[step]) for arm, step in places], key
    count = len(COLOURS) - 1  # yellow is too light for a line
    found = [Mark(COLOURS[n % count], MARKERS[n % len(MARKERS)], LINES[n % len(LINES)]) for n in range(len(arms))]
    names = [", ".join(word for word in words if word) for words in zip(arms, steps, strict=True)]
    return found, dict(zip(names, found, strict=True))


def figure(
    height: float, rows: int = 1, columns: int = 1, *, below: Sequence[str] = (), **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure one column wide with ``height`` inches for its axes, and room below for a legend of such labels."""
    lines = math.ceil(len(below) / _columns(below)) if len(below) > 1 else 0
    made = Figure(figsize=(COLUMN, height + 0.125 * lines), layout="constrained")
    axes = made.subplots(rows, columns, squeeze=False, **options)
    return made, [axis for row in axes for axis in row]


def _columns(labels: Sequence[str]) -> int:
    """Columns of a legend of such labels that go side by side."""
    longest = max((len(label) for label in labels), default=0)
    return max(1, min(4, 76 // (longest + 8), len(labels)))


def legend(made: Figure, key: Mapping[str, Mark], **others: Artist) -> None:
    """One legend below the whole figure, of a study's ``key`` and of ``others``; none for a single line."""
    handles: dict[str, Any] = {
        label: Line2D([], [], color=mark.colour, marker=mark.marker, linestyle=mark.line) for label, mark in key.items()
    }
    handles |= {label.replace("_", " "): artist for label, artist in others.items()}
    if len(handles) > 1:
        made.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=_columns(list(handles)))


def hollow() -> Line2D:
    """The hollow marker of a legend."""
    return Line2D([], [], color="black", marker="o", mfc="white", linestyle="none")


def curve(axis: Axes, points: pd.DataFrame, x: str, mark: Mark, *, band: bool = True) -> None:
    """Mean over seeds, with a band of one standard deviation if wanted; dotted where some of the seeds are missing.

    ``points`` has ``x`` in order, ``mean``, ``std`` and ``n``.
    """
    full = points["n"] == points["n"].max()
    every = -(-len(points) // MANY)
    style: dict[str, Any] = {"color": mark.colour, "marker": mark.marker, "markevery": every}
    if len(points) < FEW:
        style["linewidth"] = 0.6
    alone: dict[str, Any] = {"linestyle": "none"} if len(points) == 1 else {"linestyle": mark.line}
    whole = points[full]
    axis.plot(whole[x], whole["mean"], **(style | alone))
    wide = whole.dropna(subset=["std"]) if band or len(points) < FEW else whole[:0]
    if len(points) < FEW:
        axis.errorbar(wide[x], wide["mean"], wide["std"], fmt="none", ecolor=mark.colour, elinewidth=0.7)
    else:
        low, high = wide["mean"] - wide["std"], wide["mean"] + wide["std"]
        axis.fill_between(wide[x], low, high, color=mark.colour, alpha=0.15, linewidth=0)
    start = 0
    for complete, part in groupby(full):
        end = start + len(list(part))
        if not complete:
            piece = points.iloc[max(0, start - 1) : end + 1]
            axis.plot(piece[x], piece["mean"], color=mark.colour, linestyle=":", linewidth=0.6)
        start = end


def whole_numbers(axis: Axes, which: str = "x") -> None:
    """Ticks at whole numbers only."""
    getattr(axis, f"{which}axis").set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))


def label_below(axis: Axes, text: str) -> None:
    """The label of a horizontal axis that shares its line with long names: flush right, it may reach below them."""
    axis.set_xlabel(text, x=1.0, horizontalalignment="right")


def from_zero(axis: Axes) -> None:
    """Let the vertical axis begin at 0, with some room above what is drawn."""
    axis.set_ylim(0.0, max(axis.get_ylim()[1], 1.12 * axis.dataLim.ymax))


def bars(axis: Axes, table: pd.DataFrame, kinds: Sequence[str]) -> None:
    """Stacked horizontal bars, a row of ``table`` each, the first on top; ``kinds`` are its columns."""
    left = np.zeros(len(table))
    for place, kind in enumerate(kinds):
        width = table[kind].to_numpy(dtype=float)
        for patch in axis.barh(range(len(table)), width, left=left, height=0.7):
            patch.set(**fill(place))
        left += width
    axis.set_ylim(len(table) - 0.5, -0.5)


def fill(place: int) -> dict[str, Any]:
    """Colour and hatch of the ``place``-th kind of part."""
    colour, hatch = COLOURS[1:][place % (len(COLOURS) - 1)], HATCHES[place % len(HATCHES)]
    return {"facecolor": colour, "edgecolor": "black", "linewidth": 0.4, "hatch": hatch}


def parts(made: Figure, labels: Sequence[str], **others: Artist) -> None:
    """The legend of ``bars``, below the whole figure."""
    handles: dict[str, Any] = {label: Patch(**fill(place)) for place, label in enumerate(labels)}
    handles |= {label.replace("_", " "): artist for label, artist in others.items()}
    made.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=_columns(list(handles)))
