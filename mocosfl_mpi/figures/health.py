"""Is self-supervised training healthy: loss, collapse, hardness of the negatives, momentum models that fall behind.

Run:           python analysis/health.py RUN…
Figure:        health: a panel for each quantity that a run has; mean over seeds ± one standard deviation
Look for:      feature spread near 0 and effective rank near 1 (collapse: accuracies say little then); hardness that
               dies away (negatives too old or too few); an online-momentum distance that stays large after
               averaging, which is how MocoSFL fails at deep cuts, and a momentum spread above 0, which MonAcoSFL
               removes.
Bear in mind:  losses with labels, with predictors (BYOL, SimSiam) and of contrast are not on one scale.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import Drawing, nothing, parser, script
from mocosfl_mpi.figures.study import Study, spread
from mocosfl_mpi.methods import METHODS, Method
from mocosfl_mpi.record.reader import Run

BY_EPOCH = {
    "loss": ("epochs/loss", "loss"),
    "feature_std": ("epochs/feature_std", "feature spread"),
    "effective_rank": ("epochs/effective_rank", "effective rank"),
    "hardness": ("hardness/total", "hardness"),
}
BY_SYNC = {
    "online_momentum_distance": ("after_sync/online_momentum_distance", "online–momentum\ndistance (relative)"),
    "momentum_spread": ("after_sync/momentum_spread", "momentum spread\n(relative)"),
}
"""By quantity: data set, label; all are pure numbers."""
LABELS = {name: label for name, (_, label) in (BY_EPOCH | BY_SYNC).items()}


def quantities(run: Run, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each quantity at the end of each epoch, or after each synchronisation (mean over its clients), in epochs."""
    for name, (data, _label) in BY_EPOCH.items():
        for epoch, value in enumerate(run[data]):
            if np.isfinite(value):
                yield {"quantity": name, "epoch": epoch + 1.0, "value": float(value)}
    if not METHODS.get(str(settings.get("method")), Method()).momentum:
        return  # it has no momentum models, whose distances would be 0
    first = np.searchsorted(run["steps/epoch"], run["syncs/epoch"])
    lengths = np.bincount(run["steps/epoch"], minlength=1).max()
    places = run["syncs/epoch"] + (run["syncs/step"] - first) / max(1, lengths)
    for name, (data, _label) in BY_SYNC.items():
        for place, values in zip(places, run[data], strict=True):
            known = values[np.isfinite(values)]
            if known.size:
                yield {"quantity": name, "epoch": float(place), "value": float(known.mean())}


def draw(study: Study, _: argparse.Namespace) -> Iterator[Drawing]:
    study, frame = study.collect(quantities)
    if frame.empty:
        raise nothing("no run has a whole epoch yet", "wait for one")
    table = spread(frame, ["quantity", "group", "epoch"], "value")
    yield Drawing("health", table, partial(paint, study, table))


def paint(study: Study, table: pd.DataFrame) -> Figure:
    panels = [name for name in LABELS if (table["quantity"] == name).any()]
    rows = -(-len(panels) // 2)
    made, axes = style.figure(1.15 * rows + 0.2, rows, 2, below=list(study.legend), sharex=True)
    for panel, axis in zip(panels, axes, strict=False):
        for group in study.groups:
            points = table[(table["quantity"] == panel) & (table["group"] == group.label)].sort_values("epoch")
            if len(points):
                style.curve(axis, points, "epoch", group.mark, band=len(study.groups) <= style.BANDS)
        axis.set_ylabel(LABELS[panel])
        style.whole_numbers(axis)
        values = table[table["quantity"] == panel]["mean"]
        if panel == "hardness" and values.min() > 0 and values.max() > 100 * values.min():
            axis.set_yscale("log")
        elif panel != "loss":
            style.from_zero(axis)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(panels) - 2) : len(panels)]:
        axis.set_xlabel("epochs")
        axis.tick_params(labelbottom=True)
    style.legend(made, study.legend)
    return made


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
