"""Accuracy, bytes and privacy: which configurations are no worse than another in everything?

Run:           python analysis/tradeoff.py RUN… [--metric linear|knn]
Figure:        tradeoff: accuracy at the end against the bytes that a client sends and receives; and, where runs
               have been attacked (`mocosfl attack RUN` leaves RUN/attacks.h5), against the error of the best
               reconstruction of their images
Look for:      filled markers: the Pareto front, where nothing else is at least as good in all that was measured,
               over both panels; hollow ones are beaten. A guesser's error (grey) is as far as privacy goes.
Bear in mind:  the mean over seeds decides, and the difference may lie within the spread (bars: one standard
               deviation). "Best" is the attack with the least error among those that were tried: a stronger one can
               always come.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import Drawing, nothing, parser, script
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.record.attacks import read_outcomes
from mocosfl_mpi.record.reader import Run

METRICS = {"linear": ("linear_top1", "linear probe (%)"), "knn": ("knn_top1", "kNN accuracy (%)")}


def point(run: Run, _: Mapping[str, Any], metric: str) -> Iterator[dict[str, float | None]]:
    """Accuracy (%), MiB of a client, errors of the best reconstruction and a guesser; nothing of an unfinished run."""
    accuracy = run.result(metric)
    if accuracy is not None:
        sent = run["simulated/bytes"].sum(dtype=np.int64) / len(run["client"]) / 2**20
        error, guess = attacked(run.path.parent)
        yield {"accuracy": accuracy, "mebibytes": float(sent), "mse": error, "guess_mse": guess}


def attacked(folder: Path) -> tuple[float | None, float | None]:
    """Mean squared error of pixels in [0, 1]: of the best attack, mean over its seeds and clients; of a blind guesser.

    None where nobody has attacked.
    """
    if not (folder / "attacks.h5").exists():
        return None, None
    by_attack: dict[tuple[Any, ...], list[float]] = {}
    guesses = []
    for outcome in read_outcomes(folder):
        if outcome.kind == "reconstruction" and outcome.trained and not outcome.reason and "mse" in outcome.scores:
            key = (outcome.attack, outcome.adversary, outcome.adaptive, outcome.protocol, outcome.effort)
            by_attack.setdefault(key, []).append(outcome.scores["mse"])
            guesses += [floor["mse"] for name, floor in outcome.floors.items() if name == "constant_mean"]
    if not by_attack:
        return None, None
    return min(float(np.mean(errors)) for errors in by_attack.values()), float(np.mean(guesses)) if guesses else None


def front(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which rows of ``points`` ``[row, goal]`` no other beats: at least as large in every goal and larger in one."""
    no_less = np.all(points[:, None] <= points[None], axis=2)
    less = np.any(points[:, None] < points[None], axis=2)
    return np.asarray(~np.any(no_less & less, axis=1), dtype=np.bool_)


def summary(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """By group: means and standard deviations over seeds, their number, and whether it is on the front."""
    for name in ("mse", "guess_mse"):
        frame[name] = frame[name].astype(float)
    parts = frame.groupby("group", sort=False)
    table = pd.DataFrame(
        {
            "accuracy": parts["accuracy"].mean(),
            "accuracy_std": parts["accuracy"].std(),
            "mebibytes": parts["mebibytes"].mean(),
            "mse": parts["mse"].mean(),
            "mse_std": parts["mse"].std(),
            "guess_mse": parts["guess_mse"].mean(),
            "n": parts["accuracy"].count(),
        }
    )
    table = table.reindex([label for label in study.labels if label in table.index])
    goals = [table["accuracy"], -table["mebibytes"]]
    if table["mse"].notna().any():
        goals.append(table["mse"].fillna(-np.inf))  # never attacked: nobody knows
    table["front"] = front(np.stack([goal.to_numpy(dtype=float) for goal in goals], axis=1))
    return table.reset_index(names="group")


def draw(study: Study, options: argparse.Namespace) -> Iterator[Drawing]:
    metric, label = METRICS[options.metric]
    study, frame = study.collect(lambda run, settings: point(run, settings, metric))
    if frame.empty:
        raise nothing(f"no run has {metric} yet", "choose another --metric, or wait until runs are complete")
    table = summary(study, frame)
    missing = table["group"][table["mse"].isna()].tolist()
    if missing and len(missing) < len(table):
        study.say(f"not attacked, and taken to be no more private than others: {', '.join(missing)}")
    yield Drawing("tradeoff", table, partial(paint, study, table, label))


def paint(study: Study, table: pd.DataFrame, label: str) -> Figure:
    private = bool(table["mse"].notna().any())
    key = {name: replace(mark, line="none") for name, mark in study.legend.items() if mark.marker}
    others = {} if table["front"].all() else {"beaten": style.hollow()}
    if private:
        others["blind_guess"] = Line2D([], [], color=style.GREY, linestyle=style.LINES[2])
    made, axes = style.figure(3.4 if private else 1.9, 2 if private else 1, 1, below=[*key, *others], sharey=True)
    _panel(axes[0], table, study, "mebibytes", None)
    axes[0].set(xlabel="sent and received by a client (MiB)", ylabel=label)
    if table["mebibytes"].min() > 0 and table["mebibytes"].max() > 8 * table["mebibytes"].min():
        axes[0].set_xscale("log")
    best = table[table["front"]].sort_values("mebibytes")
    if not private:
        axes[0].plot(
            best["mebibytes"], best["accuracy"], color=style.GREY, linewidth=0.6, drawstyle="steps-post", zorder=0
        )
    else:
        _panel(axes[1], table, study, "mse", "mse_std")
        axes[1].axvline(table["guess_mse"].mean(), color=style.GREY, linestyle=style.LINES[2], linewidth=0.8)
        axes[1].set(xlabel="error of the best reconstruction (MSE, pixels in [0, 1])", ylabel=label)
    style.legend(made, key, **others)
    return made


def _panel(axis: Axes, table: pd.DataFrame, study: Study, x: str, x_std: str | None) -> None:
    groups = {group.label: group for group in study.groups}
    near = 0.05 * float(table[x].max() - table[x].min())
    said: list[tuple[str, float]] = []
    for row in table.sort_values("accuracy", ascending=False).to_dict("records"):
        group = groups[row["group"]]
        axis.errorbar(
            row[x], row["accuracy"], row["accuracy_std"], row[x_std] if x_std else None, color=group.mark.colour,
            marker=group.mark.marker, mfc=group.mark.colour if row["front"] else "white", markersize=4.5,
            elinewidth=0.7,
        )  # fmt: skip
        if np.isfinite(row[x]) and not any(step == group.step and abs(place - row[x]) < near for step, place in said):
            said.append((group.step, row[x]))  # one word for points on top of one another
            axis.annotate(group.step, (row[x], row["accuracy"]), (4, 2), textcoords="offset points", fontsize=5.5)


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--metric", choices=METRICS, default="linear", help="which accuracy (default: linear)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
