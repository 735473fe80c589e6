"""What does cutting deeper cost in accuracy, and which method bears it (MonAcoSFL's figure)?

Run:           python analysis/accuracy_by_cut.py RUN… [--metric linear|knn|classifier] [--published GRID.toml]
Figure:        accuracy-by-cut: accuracy at the end against the cut layer; mean over seeds ± one standard deviation
Look for:      MocoSFL falling with depth where MonAcoSFL stays; and the distance to the untrained network and to
               raw pixels (grey): what is below them has learnt little.
Bear in mind:  `cut_layer` counts entries of the network; of ResNet-18 the papers count 2·cut - 1 layers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from mocosfl_mpi.figures.common import Drawing, parser, script
from mocosfl_mpi.figures.published import add_published
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.figures.sweeps import level, paint, sweep
from mocosfl_mpi.record.reader import Run

KEY = "model.cut_layer"
METRICS = {
    "linear": ("linear_top1", "linear probe (%)"),
    "knn": ("knn_top1", "kNN accuracy (%)"),
    "classifier": ("classifier_top1", "accuracy of the own classifier (%)"),
}


def final(run: Run, _: Mapping[str, Any], metric: str) -> Iterator[dict[str, float | None]]:
    """The accuracy at the end, that of the untrained encoder and of raw pixels, %; nothing of an unfinished run."""
    names = {"accuracy": metric, "untrained": f"{metric}_untrained", "raw pixels": f"{metric}_pixels"}
    found = {name: run.result(result) if f"result/{result}" in run.names else None for name, result in names.items()}
    if found["accuracy"] is not None:
        yield found


def draw(study: Study, options: argparse.Namespace) -> Iterator[Drawing]:
    metric, label = METRICS[options.metric]
    study, frame = study.collect(lambda run, settings: final(run, settings, metric))
    table = sweep(study, KEY, frame, "accuracy", options, metric)
    alike = not any(key.startswith(("data.", "views.", "model.backbone", "model.width")) for key in study.keys)
    levels = (
        level(frame.astype({"untrained": float, "raw pixels": float}), ["untrained", "raw pixels"]) if alike else {}
    )
    for name, number in levels.items():
        table[name.replace(" ", "_")] = number
    yield Drawing("accuracy-by-cut", table, partial(paint, study, KEY, table, ("cut layer", label), levels))


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--metric", choices=METRICS, default="linear", help="which accuracy (default: linear)")
    add_published(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
