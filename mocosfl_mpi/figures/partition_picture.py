"""Who holds which images: classes by client.

Run:           python analysis/partition_picture.py RUN…
Figures:       partition-NAME, one for each configuration whose partition differs, of its lowest seed: images by
               client and class (area of the circle; from 41 clients on, a map of shares), and images by client
               beside it
Look for:      how many classes a client has, whether some clients have far more images than others, whether a class
               is missing.
Bear in mind:  the counts are those of the run, as recorded; other seeds deal the same kind of partition otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mocosfl_mpi.figures import style
from mocosfl_mpi.figures.common import Drawing, file_name, parser, script
from mocosfl_mpi.figures.study import Study
from mocosfl_mpi.record.reader import open_run

CIRCLES = 40
"""Clients up to which every count is a circle."""


def counts(values: npt.NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Rows of ``client``, ``class``, ``images``, from counts ``[client, class]``."""
    index = pd.MultiIndex.from_product([range(len(values)), classes], names=["client", "class"])
    return pd.Series(values.reshape(-1), index=index, name="images").reset_index()


def draw(study: Study, _: argparse.Namespace) -> Iterator[Drawing]:
    seen: set[bytes] = set()
    for group in study.groups:
        with open_run(group.members[0].path) as run:
            values, classes = run["partition/counts"], [str(name) for name in run["class"]]
        content = repr((values.shape, classes)).encode() + values.tobytes()
        if content in seen:
            continue
        seen.add(content)
        kind, seed = group.settings.get("partition.kind"), group.members[0].seed
        title = (
            f"{group.settings.get('data.source')}, {kind}, {len(values)} client{'s' * (len(values) > 1)}, seed {seed}"
        )
        yield Drawing(
            file_name("partition", group.label),
            counts(values, classes),
            partial(paint, values, classes, title),
        )


def paint(values: npt.NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    clients = len(values)
    height = 1.0 + 0.115 * min(max(clients, 3), CIRCLES) if clients <= CIRCLES else 4.0
    made, (left, right) = style.figure(height, 1, 2, width_ratios=(3, 1), sharey=True)
    _circles(left, values) if clients <= CIRCLES else _shares(made, left, values)
    wide = len(classes) > 20
    left.set_xticks(range(0, len(classes), 10 if wide else 1), classes[:: 10 if wide else 1], rotation=90, fontsize=5.5)
    left.set(ylabel="client", ylim=(clients - 0.4, -0.6))
    largest = f"\nlargest circle: {values.max(initial=0)} images" if clients <= CIRCLES else ""
    left.set_title(title + largest, fontsize=6.5)
    style.whole_numbers(left, "y")
    right.barh(range(clients), values.sum(axis=1), height=0.7 if clients <= CIRCLES else 1.0, color=style.COLOURS[2])
    right.set_xlabel("images")
    right.tick_params(axis="y", length=0)
    return made


def _circles(axis: Axes, values: npt.NDArray[np.int64]) -> None:
    client, label = np.nonzero(values)
    found = values[client, label]
    axis.scatter(label, client, s=32.0 * found / max(1, found.max(initial=1)), color="black", linewidths=0)
    axis.set_xlim(-0.6, values.shape[1] - 0.4)
    axis.grid(color="#DDDDDD", linewidth=0.4)
    axis.set_axisbelow(True)


def _shares(made: Figure, axis: Axes, values: npt.NDArray[np.int64]) -> None:
    shares = values / np.maximum(1, values.sum(axis=1, keepdims=True))
    image = axis.imshow(shares, aspect="auto", interpolation="nearest", vmin=0.0, cmap="Greys")
    made.colorbar(image, ax=axis, label="share of the client's images", location="bottom", fraction=0.05, pad=0.02)


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return script(arguments(), draw, argv)
