"""Which layers, and which clients, drift apart, and when.

Run:           python analysis/divergence_map.py RUN… [--of online_mean|online_momentum|momentum_mean]
Figures:       divergence-NAME, one for each configuration, of the run with its lowest seed. Above: L2 norm by layer
               and synchronisation, mean over the clients; below: by client and synchronisation, summed over the
               layers (MocoSFL eq. 4)
Look for:      layers that hold most of the drift (deep convolutions, as a rule); clients that are always far from
               the others (their images differ); a drift that does not shrink as the learning rate falls.
Bear in mind:  grey: the client was not drawn, dropped out, or the method has no such model. Each figure has its own
               scale, on which colours go with the square root.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import Drawing, file_name, nothing, parser, script
from mocosfl_mpi.figures.study import Group, Study
from mocosfl_mpi.record.reader import Run, open_run

OF = {
    "online_mean": "online − mean online",
    "online_momentum": "online − own momentum model",
    "momentum_mean": "momentum − mean momentum",
}
NAMED = 24
"""Layers, or clients, of which each can have its name on the axis."""


def norms(run: Run, of: str) -> pd.DataFrame:
    """Rows of ``axis`` (layer or client), ``name``, ``sync``, ``norm``; L2, before averaging."""
    values = run[f"divergence/{of}"].astype(np.float64)  # [sync, member, layer]
    clients = run["syncs/clients"]
    layers = [str(layer) for layer in run["layer"]]
    rows = []
    for sync, of_clients in enumerate(values):
        there = np.isfinite(of_clients).all(axis=1)
        if not there.any():
            continue
        by_layer = of_clients[there].mean(axis=0)
        rows += [("layer", layer, sync, norm) for layer, norm in zip(layers, by_layer, strict=True)]
        by_client = of_clients[there].sum(axis=1)
        rows += [("client", str(c), sync, norm) for c, norm in zip(clients[sync][there], by_client, strict=True)]
    return pd.DataFrame(rows, columns=["axis", "name", "sync", "norm"])


def draw(study: Study, options: argparse.Namespace) -> Iterator[Drawing]:
    found = False
    for group in study.groups:
        with open_run(group.members[0].path) as run:
            table, layers, clients = norms(run, options.of), list(run["layer"]), len(run["client"])
        if table.empty:
            study.say(f"{group.members[0].name} has no {options.of}: no synchronisation yet, or no such model")
            continue
        found = True
        yield Drawing(
            file_name("divergence", group.label),
            table,
            partial(paint, group, table, layers, clients, OF[options.of]),
        )
    if not found:
        raise nothing("no run has synchronised such models", "choose another --of, or wait for a synchronisation")


def paint(group: Group, table: pd.DataFrame, layers: Sequence[str], clients: int, of: str) -> Figure:
    heights = [0.35 + 0.075 * min(len(layers), 36), 0.35 + 0.075 * min(max(clients, 4), 24)]
    made, axes = style.figure(sum(heights) + 0.6, 2, 1, height_ratios=heights, sharex=True)
    syncs = int(table["sync"].max()) + 1
    names = [[str(layer) for layer in layers], [str(client) for client in range(clients)]]
    for axis, kind, labels in zip(axes, ("layer", "client"), names, strict=True):
        grid = np.full((len(labels), syncs), np.nan)
        part = table[table["axis"] == kind]
        places = {label: place for place, label in enumerate(labels)}
        grid[[places[name] for name in part["name"]], part["sync"]] = part["norm"]
        _map(made, axis, grid, "L2 norm" if kind == "layer" else "L2 norm,\nsum over layers")
        axis.set_ylabel(kind)
        _names(axis, labels)
    seed = group.members[0].seed
    axes[0].set_title(f"{group.label}, seed {seed}\n{of}, before averaging", fontsize=6.5)
    axes[1].set_xlabel("synchronisation")
    style.whole_numbers(axes[1])
    return made


def _map(made: Figure, axis: Axes, grid: npt.NDArray[np.float64], unit: str) -> None:
    axis.set_facecolor("#DDDDDD")
    most = np.nanmax(grid) or 1.0  # equal models have no distance at all
    image = axis.imshow(grid, aspect="auto", interpolation="nearest", norm=PowerNorm(0.5, 0.0, most))
    axis.spines[:].set_visible(False)
    scale = made.colorbar(image, ax=axis, label=unit, pad=0.02, fraction=0.06, ticks=[0.0, most / 16, most / 4, most])
    scale.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    scale.outline.set_visible(False)


def _names(axis: Axes, labels: Sequence[str]) -> None:
    if labels[0].isdigit():
        style.whole_numbers(axis, "y")
    elif len(labels) <= NAMED:
        axis.set_yticks(range(len(labels)), labels, fontsize=4.5)
    else:
        every = -(-len(labels) // NAMED)
        axis.set_yticks(range(0, len(labels), every), labels[::every], fontsize=4.5)


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--of", choices=OF, default="online_mean", help="which models (default: online_mean)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
