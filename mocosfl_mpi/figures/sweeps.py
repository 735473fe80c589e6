"""Figures with a setting on the axis: one line for all that is alike but for it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import nothing
from mocosfl_mpi.figures.published import published
from mocosfl_mpi.figures.study import Study, spread


def sweep(
    study: Study, key: str, frame: pd.DataFrame, value: str, options: argparse.Namespace, metric: str
) -> pd.DataFrame:
    """Rows of ``line``, ``key``, ``mean``, ``std``, ``n`` over seeds and ``published``, in the order of the lines.

    Raises
    ------
    BadInput
        No run has ``value``.
    """
    if frame.empty:
        raise nothing(f"no run has {metric} yet", "wait until runs are complete")
    found = spread(frame, ["group"], value)
    numbers = published(options.published, study, [metric]).drop_duplicates("group").set_index("group")["published"]
    rows = [
        {
            "line": line.label,
            key: group.settings[key],
            **found[found["group"] == group.label].iloc[0][["mean", "std", "n"]],
            "published": numbers.get(group.label, float("nan")),
        }
        for line in study.without(key)[0]
        for group in line.groups
    ]
    return pd.DataFrame(rows)


def paint(
    study: Study, key: str, table: pd.DataFrame, labels: tuple[str, str], levels: dict[str, float] | None = None
) -> Figure:
    """Means with error bars, the published numbers as hollow markers, and ``levels`` as grey lines across."""
    found, legend = study.without(key)
    lines = {line.label: line.mark for line in found}
    others = _others(table, levels or {})
    made, (axis,) = style.figure(1.9, below=[*legend, *others])
    places = sorted(table[key].unique())
    even = {place: number for number, place in enumerate(places)}  # 1, 5, 20 at equal distances
    gap = 0.06 * min(1.0, 4 / len(lines))
    for number, (label, mark) in enumerate(lines.items()):
        points = table[table["line"] == label]
        x = points[key].map(even) + gap * (number - (len(lines) - 1) / 2)
        axis.errorbar(
            x, points["mean"], points["std"], color=mark.colour, marker=mark.marker, linestyle=mark.line, elinewidth=0.7
        )
        axis.plot(x, points["published"], color=mark.colour, marker=mark.marker, mfc="white", linestyle="none")
    for place, level in enumerate((levels or {}).values()):
        axis.axhline(level, color=style.GREY, linestyle=style.LINES[2 + place % 2], linewidth=0.8)
    axis.set_xticks(range(len(places)), [f"{place:g}" for place in places])
    axis.set_xlim(-0.4, len(places) - 0.6)
    axis.set(xlabel=labels[0], ylabel=labels[1])
    if not levels and table["mean"].min() >= 0:
        style.from_zero(axis)
    style.legend(made, legend, **others)
    return made


def _others(table: pd.DataFrame, levels: dict[str, float]) -> dict[str, Line2D]:
    found = {
        name: Line2D([], [], color=style.GREY, linestyle=style.LINES[2 + place % 2])
        for place, name in enumerate(levels)
    }
    if table["published"].notna().any():
        found["published"] = style.hollow()
    return found


def level(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """Means of the columns that have numbers, over all runs."""
    return {name: float(frame[name].mean()) for name in columns if frame[name].notna().any()}
