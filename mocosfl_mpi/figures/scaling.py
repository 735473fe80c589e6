"""How does the time of a step, and the memory, grow with ranks and with simulated clients?

Run:           python analysis/scaling.py RUN…
Figures:       scaling-ranks and scaling-clients, whichever differs among the runs: seconds of a step (median epoch
               of the run, without the first, which warms up), speed-up over the fewest ranks, and memory of all
               ranks at its largest; mean over runs ± one standard deviation
Look for:      where the speed-up leaves the grey line, on which n ranks are n times as fast; and memory that grows
               with clients.
Bear in mind:  measured on the machines of the runs: compare only runs of one machine with nothing else on it. Runs
               that several sessions made are left out where these had different numbers of ranks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import Drawing, nothing, parser, script
from mocosfl_mpi.figures.study import Study, spread
from mocosfl_mpi.record.reader import Run

TRAINING = ("views", "client_forward", "exchange", "server", "client_backward", "synchronise")
"""Phases whose seconds on rank 0 make up the time of training: where it does not work it waits in one of them."""
AXES = {"ranks": ("ranks", "MPI ranks"), "clients": ("client.count", "simulated clients")}


def measured(run: Run, _: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    """Seconds of a step and MiB of all ranks; nothing of a run that has no whole epoch, or has changed ranks."""
    epochs, steps = run.rows["epoch"], run.rows["step"]
    sessions = set(run["sessions/ranks"].tolist()) if "sessions/ranks" in run.names else set()
    per_epoch = np.bincount(run["steps/epoch"][:steps], minlength=epochs)[:epochs].max(initial=0)
    if not epochs or not per_epoch or len(sessions) > 1:
        return
    phases = run["phase"].tolist()
    columns = [phases.index(name) for name in TRAINING]
    seconds = run["measured/seconds"][1 if epochs > 1 else 0 :, 0][:, columns].sum(axis=1)
    yield {
        "seconds": float(np.median(seconds)) / float(per_epoch),
        "mebibytes": float(np.nansum(run["measured/resident_bytes"], axis=1).max()) / 2**20,
    }


def growth(study: Study, frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """Rows of ``line``, ``key``, means and standard deviations over runs, their number, and the speed-up."""
    seconds = spread(frame, ["group"], "seconds").set_index("group")
    memory = spread(frame, ["group"], "mebibytes").set_index("group")
    rows = []
    for line in study.without(key)[0]:
        first: float | None = None
        for group in line.groups:
            mean, std, n = seconds.loc[group.label, ["mean", "std", "n"]]
            first = mean if first is None else first
            most = memory.loc[group.label, "mean"]
            rows.append((line.label, group.settings[key], mean, std, n, first / mean, most))
    return pd.DataFrame(rows, columns=["line", key, "seconds", "seconds_std", "n", "speed_up", "mebibytes"])


def draw(study: Study, _: argparse.Namespace) -> Iterator[Drawing]:
    study, frame = study.collect(measured)
    if frame.empty:
        raise nothing("no run has a whole epoch yet", "wait for one")
    wanted = [axis for axis, (key, _label) in AXES.items() if len({group.settings[key] for group in study.groups}) > 1]
    if not wanted:
        group = study.groups[0]
        raise nothing(
            f"all runs have {group.settings['ranks']} rank(s) and {group.settings['client.count']} clients",
            "give runs on different numbers of ranks (mocosfl run … -n N), or of different client.count",
        )
    single = [member.name for member in study.members if member.epochs == 1]
    if single:
        study.say(f"one epoch only, which warms up: {', '.join(single)}")
    for axis in wanted:
        key, label = AXES[axis]
        table = growth(study, frame, key)
        yield Drawing(f"scaling-{axis}", table, partial(paint, study, table, key, label))


def paint(study: Study, table: pd.DataFrame, key: str, label: str) -> Figure:
    found, legend = study.without(key)
    panels = {"seconds": "seconds a step", "speed_up": "speed-up", "mebibytes": "memory (MiB)"}
    if key != "ranks":
        del panels["speed_up"]
    others = {"in_proportion": Line2D([], [], color=style.GREY, linewidth=0.8)} if key == "ranks" else {}
    made, axes = style.figure(1.1 * len(panels) + 0.35, len(panels), 1, below=[*legend, *others], sharex=True)
    for axis, (column, title) in zip(axes, panels.items(), strict=True):
        for line in found:
            points = table[table["line"] == line.label]
            axis.errorbar(
                points[key], points[column], points["seconds_std"] if column == "seconds" else None,
                color=line.mark.colour, marker=line.mark.marker, linestyle=line.mark.line, elinewidth=0.7,
            )  # fmt: skip
        axis.set_ylabel(title)
    if key == "ranks":
        most, least = table[key].max(), table[key].min()
        axes[1].plot([least, most], [1.0, most / least], color=style.GREY, linewidth=0.8, zorder=0)
    for axis in axes:
        style.from_zero(axis)
    axes[-1].set_xlabel(label)
    style.whole_numbers(axes[-1])
    style.legend(made, legend, **others)
    return made


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv, by_ranks=True)
