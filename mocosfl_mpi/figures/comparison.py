"""Many runs at once: mean ± standard deviation over seeds, differences of pairs with p, published numbers.

Run:           python analysis/comparison.py RUN… [--metric NAME]… [--against KEY=VALUE]… [--published GRID.toml]
Figures:       comparison: each seed (small), mean ± one standard deviation, published number (hollow); differences:
               run minus the run of the same seed in the reference group, each pair, mean ± one standard deviation
Look for:      differences whose pairs all lie on one side of 0. The CSV has n and p of the exact sign-flip test
               (two-sided: how often does as large a mean come about if each difference might as well have the other
               sign); n pairs cannot give a p below 2/2^n, which is 0.25 with three seeds: no figure of so few can
               be significant at 0.05.
Bear in mind:  with many differences some are small by chance; published numbers are of longer training and larger
               networks.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import Drawing, nothing, parser, script
from mocosfl_mpi.figures.published import add_published, published
from mocosfl_mpi.figures.study import Group, Study, spread
from mocosfl_mpi.record.reader import Run

METRICS = {
    "linear_top1": "linear probe (%)",
    "knn_top1": "kNN accuracy (%)",
    "knn_projector_top1": "kNN on projections (%)",
    "classifier_top1": "own classifier (%)",
    "online_momentum_distance": "online–momentum distance (relative)",
    "wall_seconds": "run time (s)",
}
DEFAULT = ("linear_top1", "knn_top1")
EXACT = 16
"""Pairs up to which all signs are tried; of more, ``DRAWS`` random ones."""
DRAWS = 100_000


def results(run: Run, metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of ``metric`` and ``value`` at the end of the run."""
    for metric in metrics:
        value = run.result(metric) if f"result/{metric}" in run.names else None
        if value is not None:
            yield {"metric": metric, "value": value}


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the mean of paired differences, if each might as well have the other sign; NaN of none.

    All 2^n choices of signs are tried, of more than ``EXACT`` pairs a random sample with a fixed seed.
    """
    found = np.asarray(differences, dtype=np.float64)
    if not found.size:
        return float("nan")
    if found.size <= EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=found.size)))
        added = 0
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), size=(DRAWS, found.size))
        added = 1  # the observed signs are one of them
    means = np.abs(signs @ found)
    reached = int((means >= abs(found.sum()) * (1 - 1e-12)).sum())
    return (reached + added) / (len(means) + added)


def reference(study: Study, against: Sequence[str]) -> dict[str, Group]:
    """By group's label the group that it is compared with: alike but for the settings named in ``against``.

    Without any, the words of the first group (its method, say) are the reference, at the same numbers (its cut); where
    groups differ in numbers only, the first group is. A lone group that fits is everybody's reference.

    Raises
    ------
    BadInput
        ``against`` is no KEY=VALUE of this study.
    """
    wanted = _wanted(study, against)
    fitting = [group for group in study.groups if all(_text(group.values[key]) == text for key, text in wanted.items())]
    if not fitting:
        raise BadInput(f"--against {', '.join(against)}: no group of runs is so; the groups: {'; '.join(study.labels)}")
    found = {}
    for group in study.groups:
        rest = [key for key in study.keys if key not in wanted]
        alike = [other for other in fitting if all(other.values[key] == group.values[key] for key in rest)]
        match = alike or (fitting if len(fitting) == 1 else [])
        if match and match[0] is not group:
            found[group.label] = match[0]
    return found


def _wanted(study: Study, against: Sequence[str]) -> dict[str, str]:
    if against:
        wanted = {}
        for word in against:
            key, equals, text = word.partition("=")
            names = [name for name in study.keys if name == key or name.rpartition(".")[2] == key]
            if not equals or not names:
                raise BadInput(
                    f"--against {word}: give KEY=VALUE with a setting in which the runs differ: "
                    f"{', '.join(study.keys) or 'they differ in none'}"
                )
            wanted[names[0]] = text
        return wanted
    first = study.groups[0].values
    words = {key: _text(value) for key, value in first.items() if not isinstance(value, int | float)}
    return words or {key: _text(value) for key, value in first.items()}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def pairs(study: Study, frame: pd.DataFrame, against: Sequence[str]) -> pd.DataFrame:
    """Rows of ``metric``, ``group``, ``against``, ``seed``, ``difference`` for runs of the same seed."""
    values = frame.groupby(["metric", "group", "seed"], sort=False)["value"].mean()
    rows = []
    for label, other in reference(study, against).items():
        for (metric, group, seed), value in values.items():
            if group == label and (metric, other.label, seed) in values.index:
                rows.append((metric, label, other.label, seed, value - values[metric, other.label, seed]))
    return pd.DataFrame(rows, columns=["metric", "group", "against", "seed", "difference"])


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """By metric and group: mean, standard deviation, number of pairs, p, the least that p can be, each pair."""
    parts = found.groupby(["metric", "group", "against"], sort=False)["difference"]
    table = parts.agg(mean="mean", std="std", n="count").reset_index()
    table["p"] = [sign_flip(part.tolist()) for _, part in parts]
    table["least_p"] = np.minimum(1.0, 2.0 / 2.0 ** table["n"])
    table["pairs"] = [" ".join(f"{value:+.4g}" for value in part) for _, part in parts]
    return table


def draw(study: Study, options: argparse.Namespace) -> Iterator[Drawing]:
    metrics = options.metric or DEFAULT
    study, frame = study.collect(lambda run, _: results(run, metrics))
    if frame.empty:
        raise nothing(
            f"no run has {' or '.join(metrics)} yet", "choose another --metric, or wait until runs are complete"
        )
    table = spread(frame, ["metric", "group"], "value")
    numbers = published(options.published, study, metrics)
    table = table.merge(numbers, how="left", on=["group", "metric"])
    parts = frame.groupby(["metric", "group"], sort=False)["value"]
    table["values"] = [" ".join(f"{value:.6g}" for value in part) for _, part in parts]
    yield Drawing("comparison", table, partial(paint, study, table, frame.rename(columns={"value": "one"}), metrics))
    single = pairs(study, frame, options.against)
    if single.empty:
        study.say("no two groups have runs of the same seed: no differences")
        return
    gaps = differences(single)
    yield Drawing(
        "differences",
        gaps,
        partial(paint, study, gaps, single.rename(columns={"difference": "one"}), metrics, difference=True),
    )


def paint(
    study: Study, table: pd.DataFrame, single: pd.DataFrame, metrics: Sequence[str], *, difference: bool = False
) -> Figure:
    """A panel for each metric, a line for each group, the first on top."""
    labels = [label for label in study.labels if (table["group"] == label).any()]
    shown = [metric for metric in metrics if (table["metric"] == metric).any()]
    others: dict[str, Line2D] = {}
    if not difference and table["published"].notna().any():
        others = {"mean": Line2D([], [], color="black", marker="o", linestyle="none")}
        others["published"] = style.hollow()
    height = len(shown) * (0.42 + (0.22 if difference else 0.15) * len(labels)) + 0.15
    made, axes = style.figure(height, len(shown), 1, below=list(others))
    marks = {group.label: group.mark for group in study.groups}
    for axis, metric in zip(axes, shown, strict=True):
        part = table[table["metric"] == metric].set_index("group")
        ones = single[single["metric"] == metric]
        if difference:
            axis.axvline(0.0, color=style.GREY, linewidth=0.8)
        for place, label in enumerate(labels):
            if label not in part.index:
                continue
            row, mark = part.loc[label], marks[label]
            own = ones[ones["group"] == label]["one"]
            axis.plot(own, [place + 0.24] * len(own), color=mark.colour, marker="|", markersize=4, linestyle="none")
            axis.errorbar(
                row["mean"], place - 0.1, xerr=row["std"], color=mark.colour, marker=mark.marker, elinewidth=0.7
            )
            if not difference:
                axis.plot(
                    row["published"], place - 0.1, color="black", marker=mark.marker, mfc="white", linestyle="none"
                )
        names = labels if not difference else [_versus(label, part) for label in labels]
        axis.set_yticks(range(len(labels)), names, fontsize=5.5)
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        style.label_below(
            axis, f"difference of {METRICS[metric].replace(' (%)', ' (points)')}" if difference else METRICS[metric]
        )
    style.legend(made, {}, **others)
    return made


def _versus(label: str, part: pd.DataFrame) -> str:
    if label not in part.index:
        return label
    row: Mapping[str, Any] = part.loc[label].to_dict()
    other = [
        word for word in row["against"].split(", ") if word not in label.split(", ")
    ]  # what it has in common is said
    return f"{label}\n− {', '.join(other) or row['against']}, n = {row['n']}, p = {row['p']:.2g}"


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument(
        "--metric", action="append", choices=METRICS, help="may be repeated (default: linear_top1 and knn_top1)"
    )
    made.add_argument(
        "--against", action="append", default=[], metavar="KEY=VALUE",
        help="what the reference has, for example method=mocosfl; may be repeated",
    )  # fmt: skip
    add_published(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
