"""What does one simulated client spend: computation, bytes by kind, memory (MocoSFL Table 1, Fig. 3b and 7)?

Run:           python analysis/client_cost.py RUN…
Figures:       cost-image: of one image, but for momentum update and optimiser; cost-computation, cost-bytes: of the
               run so far, mean over all simulated clients, those never drawn included; cost-memory: the uses of one
               client's memory; diamond: peak, the most at one time, with what a layer needs for a moment
Look for:      what dominates: smashed data or models, forward or backward, activations or weights; and how it moves
               with the cut. Costs do not depend on the seed but for who is drawn.
Bear in mind:  bytes are payload in both directions; FLOPs count 2 for a multiply-accumulate, the papers 1; the
               papers count one direction of models and two of the three tensors at the cut (`mocosfl plan …
               --published-accounting`).
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
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.record.reader import Run

KINDS = {
    "query data up": ("query_up",),
    "key data up": ("key_up",),
    "gradients": ("gradient_down", "gradient_up"),
    "features, labels": ("features_down", "labels_up"),
    "online models up": ("weights_up",),
    "online models down": ("weights_down",),
    "momentum models": ("momentum_up", "momentum_down"),
    "velocities": ("velocity_up", "velocity_down"),
}
WORK = {
    "query forward": ("query_forward",),
    "key forward": ("key_forward",),
    "backward": ("backward",),
    "momentum update, optimiser": ("ema", "optimiser"),
    "mixing, compression": ("alignment", "codec"),
    "defence": ("defence",),
}
MEMORY = {
    "weights": ("weights",),
    "momentum weights": ("momentum_weights",),
    "velocity": ("velocity",),
    "gradients": ("gradients",),
    "input": ("input",),
    "activations": ("activations",),
    "peak": ("peak",),
}
FIGURES: dict[str, tuple[str, str, Mapping[str, tuple[str, ...]], str]] = {
    "bytes": ("simulated/bytes", "message", KINDS, "sent and received by a client"),
    "computation": ("simulated/client_flops", "work", WORK, "computed by a client"),
    "image": ("cost/flops_per_image", "work", WORK, "computed by a client for an image"),
    "memory": ("cost/client_memory", "memory", MEMORY, "memory of a client"),
}
UNITS = {
    "B": [(2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "byte")],
    "FLOP": [(1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"), (1.0, "FLOP")],
}


def costs(run: Run, _: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of ``figure``, ``kind`` and ``amount`` (byte or FLOP) of one client; nothing before a whole epoch."""
    if not run.rows["epoch"]:
        return
    for figure, (data, scale, kinds, _label) in FIGURES.items():
        values = run[data]
        if figure == "image":
            totals = values[run["segment"].tolist().index("client")]
        elif figure == "memory":
            totals = values
        else:
            totals = values.sum(axis=(0, 1), dtype=np.int64) / len(run["client"])
        found = dict(zip(run[scale].tolist(), totals.tolist(), strict=True))
        for kind, names in kinds.items():
            yield {"figure": figure, "kind": kind, "amount": float(sum(found.get(name, 0) for name in names))}


def draw(study: Study, _: argparse.Namespace) -> Iterator[Drawing]:
    study, frame = study.collect(costs)
    if frame.empty:
        raise nothing("no run has a whole epoch yet, and nothing was spent", "wait for one")
    for figure in FIGURES:
        part = frame[frame["figure"] == figure]
        found = part.pivot_table(index="group", columns="kind", values="amount", aggfunc="mean", sort=False)
        kinds = [kind for kind in found.columns if found[kind].any()]
        amounts = found.reindex(study.labels)[kinds]
        factor, unit = unit_of(amounts.drop(columns="peak", errors="ignore").sum(axis=1).max(), figure)
        table = (amounts / factor).reset_index().assign(unit=unit)
        yield Drawing(f"cost-{figure}", table, partial(paint, table, FIGURES[figure][3]))


def unit_of(largest: float, figure: str) -> tuple[float, str]:
    """The unit in which the largest bar has a number from 1 on: its size and name."""
    units = UNITS["FLOP" if figure in ("computation", "image") else "B"]
    return next(((size, name) for size, name in units if largest >= size), units[-1])


def paint(table: pd.DataFrame, label: str) -> Figure:
    kinds = [name for name in table.columns if name not in ("group", "unit", "peak")]
    others = {"peak": Line2D([], [], color="black", marker="D", mfc="white", linestyle="none")}
    others = others if "peak" in table else {}
    made, (axis,) = style.figure(0.65 + 0.16 * len(table), below=[*kinds, *others, ""])
    style.bars(axis, table, kinds)
    if others:
        axis.plot(table["peak"], range(len(table)), color="black", marker="D", mfc="white", linestyle="none", mew=0.7)
    axis.set_yticks(range(len(table)), table["group"], fontsize=6)
    axis.tick_params(axis="y", length=0)
    style.label_below(axis, f"{label} ({table['unit'].iloc[0]})")
    style.parts(made, kinds, **others)
    return made


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
