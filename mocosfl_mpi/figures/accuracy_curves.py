"""How accuracy grows with epochs, with images that clients have drawn, and with bytes that a client has moved.

Run:           python analysis/accuracy_curves.py RUN… [--metric knn|projector|classifier]
Figures:       accuracy-epochs, accuracy-images, accuracy-bytes: mean over seeds ± one standard deviation
Look for:      whose curve is above at equal bytes, which is another question than at equal epochs; whether the
               curves have levelled off; and whether they are above raw pixels at all (grey, dash-dotted).
Bear in mind:  looks during the run may have a smaller kNN bank (`evaluation.bank_images`) than the last one; images
               count every time they are drawn; bytes are payload, up and down, mean over all simulated clients.
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

METRICS = {
    "knn": ("knn_top1", "kNN accuracy (%)"),
    "projector": ("knn_projector_top1", "kNN accuracy on projections (%)"),
    "classifier": ("classifier_top1", "accuracy of the own classifier (%)"),
}
AXES = {
    "epochs": ("epoch", 1.0, "epochs"),
    "images": ("images", 1e3, "images drawn by all clients (thousands)"),
    "bytes": ("bytes", 2.0**20, "sent and received by a client (MiB)"),
}
"""By figure: column, unit, label of the axis."""


def looks(run: Run, settings: Mapping[str, Any], metric: str = "knn_top1") -> Iterator[dict[str, float | None]]:
    """Every look at the encoder: epochs completed, images drawn, bytes of a client, accuracy in %, that of pixels."""
    if f"result/{metric}" not in run.names:
        return
    epochs = run.rows["epoch"]
    spent = run["simulated/bytes"].sum(axis=(1, 2), dtype=np.int64).cumsum() / len(run["client"])
    drawn = images(run, settings).cumsum()
    seen = dict(zip(run["evaluations/epoch"].tolist(), run[f"evaluations/{metric}"].tolist(), strict=True))
    if (final := run.result(metric)) is not None:
        seen.setdefault(epochs, final)
    pixels = run.result("knn_top1_pixels")
    for epoch, accuracy in sorted(seen.items()):
        if epoch <= epochs and np.isfinite(accuracy):
            before = (int(drawn[epoch - 1]), float(spent[epoch - 1])) if epoch else (0, 0.0)
            yield {"epoch": epoch, "images": before[0], "bytes": before[1], "accuracy": accuracy, "pixels": pixels}


def images(run: Run, settings: Mapping[str, Any]) -> np.ndarray:
    """Images that clients draw in each whole epoch, int64 ``[epoch]``: steps times the batches of those taking part."""
    clients, epochs = run["epochs/clients"], run.rows["epoch"]
    rich = int(round(float(settings.get("client.rich_share", 0.0)) * len(run["client"]), 9))
    batch = np.where(clients < rich, int(settings.get("client.rich_batch_factor", 1)), 1)
    if "epochs/present" in run.names:
        batch = batch * run["epochs/present"]
    steps = np.bincount(run["steps/epoch"], minlength=epochs)[:epochs]
    batches = np.ones(epochs, dtype=np.int64) if settings.get("method") == "split_vertical" else batch.sum(axis=1)
    return np.asarray(steps * batches * int(settings["client.batch_size"]), dtype=np.int64)


def curves(frame: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds by group and place on the axis (mean over the seeds, its unit)."""
    column, unit, _ = AXES[axis]
    found = spread(frame, ["group", "epoch"], "accuracy")
    places = frame.groupby(["group", "epoch"], sort=False)[column].mean() / unit
    found[axis] = [places[group, epoch] for group, epoch in zip(found["group"], found["epoch"], strict=True)]
    return found


def draw(study: Study, options: argparse.Namespace) -> Iterator[Drawing]:
    metric, label = METRICS[options.metric]
    study, frame = study.collect(lambda run, settings: looks(run, settings, metric))
    if frame.empty:
        raise nothing(
            f"no run has {metric} yet", "choose another --metric, or wait for the first evaluation (evaluation.every)"
        )
    levels = frame["pixels"].astype(float).dropna().unique() if metric == "knn_top1" else []
    pixels = float(np.mean(levels)) if len(levels) and _same_images(study) else None
    for axis in AXES:
        table = curves(frame, axis)
        if pixels is not None:
            table["raw_pixels"] = pixels
        yield Drawing(f"accuracy-{axis}", table, partial(paint, study, table, axis, label, pixels))


def _same_images(study: Study) -> bool:
    """Whether one line for raw pixels can stand for all runs."""
    return not any(key.startswith(("data.", "views.")) for key in study.keys)


def paint(study: Study, table: pd.DataFrame, axis: str, label: str, pixels: float | None) -> Figure:
    others = {} if pixels is None else {"raw_pixels": Line2D([], [], color=style.GREY, linestyle=style.LINES[3])}
    made, (only,) = style.figure(1.9, below=[*study.legend, *others])
    for group in study.groups:
        points = table[table["group"] == group.label].sort_values(axis)
        if len(points):
            style.curve(only, points, axis, group.mark, band=len(study.groups) <= style.BANDS)
    if pixels is not None:
        only.axhline(pixels, color=style.GREY, linestyle=style.LINES[3], linewidth=0.8)
    if axis == "epochs":
        style.whole_numbers(only)
    only.set(xlabel=AXES[axis][2], ylabel=label)
    style.legend(made, study.legend, **others)
    return made


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--metric", choices=METRICS, default="knn", help="which accuracy (default: knn)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
