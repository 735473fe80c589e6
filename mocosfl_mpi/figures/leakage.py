"""How much do adversaries learn, and how much of it does a defence, a cut or a method keep from them?

Run:           python analysis/leakage.py RUN…      after `mocosfl attack` on each of them
Figures:       leakage-KIND for each kind of attack (reconstruction, linkage, membership …): a line for each group of
               runs, and for adversaries that know of the defence or not; mean ± standard deviation over seeds of both
Look for:      the distance from the dashed floor, which is what one who sees nothing scores; hollow: the same attack on
               random networks of the same layers, which is due to the layers alone. An attacker who knows the defence
               is the one that counts.
Bear in mind:  an attack that fails shows that this attack fails. Accuracy of the same runs: comparison.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import Drawing, nothing, parser, script
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.record.attack_schema import FILE_NAME, METRICS, PRINCIPAL
from mocosfl_mpi.record.attacks import Outcome, read_outcomes
from mocosfl_mpi.record.reader import Run

KNOWS = {-1: "", 0: "naive", 1: "adaptive"}
"""What an adversary knows of the defence; nothing to know where there is none."""
BLIND = {"reconstruction": "constant_mean", "inversion": "constant_mean"}
"""The floor that is drawn, by kind; of the others it is `chance`."""
OURS = "ours"
LONGEST = 70
"""Letters of a group's name that there is room for; the CSV has it whole."""


def scores(run: Run, _: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of ``kind``, ``attack``, ``adversary``, ``knows``, ``trained``, ``score``, ``floor``; none if not attacked.

    Of the newest checkpoint that was attacked; of an attack that was done twice, with most effort and images.
    """
    folder = run.path.parent
    if not (folder / FILE_NAME).exists():
        return
    newest: dict[tuple[Any, ...], Outcome] = {}
    for outcome in sorted(read_outcomes(folder), key=lambda one: (one.steps, one.effort, one.images)):
        who = (outcome.attack, outcome.adversary, outcome.adaptive, outcome.protocol)
        newest[*who, outcome.trained, outcome.client, outcome.seed] = outcome
    latest = max((outcome.steps for outcome in newest.values()), default=0)
    for outcome in newest.values():
        metric = PRINCIPAL.get(outcome.kind, "")
        if outcome.steps < latest or outcome.reason or outcome.protocol != OURS or metric not in outcome.scores:
            continue
        floor = outcome.floors.get(BLIND.get(outcome.kind, "chance"), {})
        yield {
            "kind": outcome.kind,
            "attack": outcome.attack,
            "adversary": outcome.adversary,
            "knows": KNOWS[outcome.adaptive],
            "trained": outcome.trained,
            "score": outcome.scores[metric],
            "floor": floor.get(metric, float("nan")),
        }


def draw(study: Study, _: argparse.Namespace) -> Iterator[Drawing]:
    study, frame = study.collect(scores)
    if frame.empty:
        raise nothing("none of the runs has been attacked", "run `mocosfl attack RUN` on them first")
    for kind, part in frame.groupby("kind", sort=False):
        several = part["adversary"].nunique() > 1  # what some kinds of attack learn depends on who mounts them
        by = " by " + part["adversary"].str.replace("_", " ") if several else ""
        table = summary(study, part.assign(attack=part["attack"] + by))
        yield Drawing(f"leakage-{kind}", table, partial(paint, table, METRICS[PRINCIPAL[str(kind)]].title))


def summary(study: Study, part: pd.DataFrame) -> pd.DataFrame:
    """By group, knowledge and attack: mean, standard deviation and number of ``score``, floor, and the control."""
    keys = ["group", "knows", "attack"]
    trained = part[part["trained"]].groupby(keys, sort=False)
    table = pd.DataFrame(
        {
            "mean": trained["score"].mean(),
            "std": trained["score"].std(),
            "n": trained["score"].count(),
            "floor": trained["floor"].mean(),
            "untrained": part[~part["trained"]].groupby(keys, sort=False)["score"].mean(),
        }
    ).reset_index()
    order = {label: place for place, label in enumerate(study.labels)}
    return table.sort_values(["group", "knows", "attack"], key=lambda c: c.map(order) if c.name == "group" else c)


def paint(table: pd.DataFrame, label: str) -> Figure:
    attacks = table["attack"].drop_duplicates().tolist()
    lines = table[["group", "knows"]].drop_duplicates().to_dict("records")
    groups = table["group"].drop_duplicates().tolist()
    others = {"untrained": style.hollow(), "sees_nothing": Line2D([], [], color=style.GREY, linestyle=style.LINES[1])}
    made, (axis,) = style.figure(0.5 + 0.14 * (len(lines) + len(groups)), below=[*attacks, *others])
    marks = {
        name: style.Mark(style.COLOURS[place % len(style.COLOURS)], style.MARKERS[place % len(style.MARKERS)], "")
        for place, name in enumerate(attacks)
    }
    places = [number + groups.index(line["group"]) + 1 for number, line in enumerate(lines)]  # a title above each group
    for place, line in zip(places, lines, strict=True):
        own = table[(table["group"] == line["group"]) & (table["knows"] == line["knows"])]
        axis.plot([own["floor"].mean()] * 2, [place - 0.4, place + 0.4], color=style.GREY, linestyle=style.LINES[1])
        for row in own.to_dict("records"):
            mark = marks[row["attack"]]
            look: dict[str, Any] = {"color": mark.colour, "marker": mark.marker, "linestyle": "none"}
            axis.errorbar(row["mean"], place, xerr=None if pd.isna(row["std"]) else row["std"], **look)
            axis.plot(row["untrained"], place, mfc="white", mew=0.7, zorder=0, **look)
    for name in groups:
        first = min(place for place, line in zip(places, lines, strict=True) if line["group"] == name)
        text = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        axis.text(0.0, first - 1, text, transform=axis.get_yaxis_transform(), fontsize=5.5, va="center")
    axis.set_yticks(places, [line["knows"] for line in lines], fontsize=6)
    axis.set_ylim(max(places) + 0.7, -0.6)
    style.label_below(axis, f"{label} of the attack")
    style.legend(made, marks, **others)
    return made


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
