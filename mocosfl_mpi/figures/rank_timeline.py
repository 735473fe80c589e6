"""What every MPI rank did with its time, and how much of it waiting.

Run:           python analysis/rank_timeline.py RUN…
Figures:       timeline-NAME, one for each run. Above: each rank's seconds by phase, epoch after epoch; below: idle
               share by epoch
Look for:      a rank that waits while another works: give that one fewer clients or more threads, or use fewer
               ranks (`mocosfl plan … --solve ranks`); epochs that take longer than others (another job on the
               machine).
Bear in mind:  a phase holds what its rank waited in it, most of it in `exchange`; sums by epoch are recorded, so
               that within an epoch phases stand in the order of a step. Of more than six epochs the mean epoch is
               shown, without the first, which warms up. All this was measured on the machine of the run, and says
               nothing of simulated clients.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import Drawing, file_name, nothing, parser, script
from mocosfl_mpi.figures.study import Group, Member, Study
from mocosfl_mpi.record.reader import Run, open_run

EPOCHS = 6
"""Of more, the mean epoch is shown."""


def timeline(run: Run) -> pd.DataFrame:
    """Rows of ``epoch`` (from 0; "mean" of many), ``rank``, ``phase``, ``start`` and ``seconds``."""
    values = run["measured/seconds"]  # [epoch, rank, phase]; NaN: a rank that only another session had
    phases = [str(phase) for phase in run["phase"]]
    names: list[str] = [str(epoch) for epoch in range(len(values))]
    if len(values) > EPOCHS:
        there = np.isfinite(values[1:])
        sums, counted = np.where(there, values[1:], 0.0).sum(axis=0), there.sum(axis=0)
        values, names = np.where(counted, sums / np.maximum(counted, 1), np.nan)[None], ["mean"]
    rows, begin = [], 0.0
    for name, ranks in zip(names, values, strict=True):
        for rank, parts in enumerate(ranks):
            starts = begin + np.concatenate([[0.0], parts.cumsum()])
            if np.isfinite(parts).all():
                rows += [(name, rank, *part) for part in zip(phases, starts, parts, strict=False)]
        begin += float(np.nansum(ranks, axis=1).max(initial=0.0))
    return pd.DataFrame(rows, columns=["epoch", "rank", "phase", "start", "seconds"])


def idle(run: Run) -> pd.DataFrame:
    """Rows of ``epoch`` (from 1), ``rank`` and ``idle``, %."""
    shares = run["measured/idle_share"]
    rows = [(e + 1, rank, 100.0 * shares[e, rank]) for e, rank in np.ndindex(shares.shape)]
    return pd.DataFrame(rows, columns=["epoch", "rank", "idle"]).dropna()


def draw(study: Study, _: argparse.Namespace) -> Iterator[Drawing]:
    found = False
    for group, member in study.pairs:
        with open_run(member.path) as run:
            bars, shares = timeline(run), idle(run)
        if bars.empty:
            study.say(f"{member.name} has no whole epoch yet")
            continue
        found = True
        table = pd.concat([bars.assign(panel="timeline"), shares.assign(panel="idle")])
        yield Drawing(
            file_name("timeline", member.name),
            table[["panel", "epoch", "rank", "phase", "start", "seconds", "idle"]],
            partial(paint, group, member, bars, shares),
        )
    if not found:
        raise nothing("no run has a whole epoch yet", "wait for one")


def paint(group: Group, member: Member, bars: pd.DataFrame, shares: pd.DataFrame) -> Figure:
    phases = [phase for phase in bars["phase"].unique() if bars[bars["phase"] == phase]["seconds"].sum() > 0]
    ranks = sorted(bars["rank"].unique())
    heights = (0.3 + 0.16 * min(len(ranks), 16), 0.8)
    made, (above, below) = style.figure(sum(heights) + 0.85, 2, 1, below=[*phases, ""], height_ratios=heights)
    for place, phase in enumerate(phases):
        part = bars[bars["phase"] == phase]
        for patch in above.barh(part["rank"], part["seconds"], left=part["start"], height=0.8):
            patch.set(**style.fill(place))
    _edges(above, bars)
    many = bool((bars["epoch"] == "mean").all())
    above.set(ylabel="rank", ylim=(max(ranks) + 0.6, -0.6), xlabel=f"seconds{' (mean epoch)' if many else ''}")
    above.set_xlim(left=0)
    style.whole_numbers(above, "y")
    above.set_title(f"{member.name}: {group.label}, seed {member.seed}", fontsize=6.5)
    marks, _ = style.marks([f"rank {rank}" for rank in ranks], [""] * len(ranks))
    for rank, mark in zip(ranks, marks, strict=True):
        own = shares[shares["rank"] == rank]
        below.plot(own["epoch"], own["idle"], color=mark.colour, marker=mark.marker, linestyle=mark.line)
        if len(ranks) <= EPOCHS and len(own):
            below.annotate(
                f"{rank}",
                (own["epoch"].iloc[-1], own["idle"].iloc[-1]),
                (4, -2),
                textcoords="offset points",
                fontsize=6,
            )
    below.set(xlabel="epochs", ylabel="waiting (%)\nby rank", ylim=(0, max(10.0, 1.15 * shares["idle"].max())))
    style.whole_numbers(below)
    style.parts(made, [phase.replace("_", " ") for phase in phases])
    return made


def _edges(axis: Axes, bars: pd.DataFrame) -> None:
    """A line where an epoch begins."""
    for start in bars.groupby("epoch", sort=False)["start"].min().iloc[1:]:
        axis.axvline(start, color="black", linewidth=0.8)


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv, by_ranks=True)
