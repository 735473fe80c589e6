"""A partition as a picture for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SHADES = " ▁▂▃▄▅▆▇█"
_ROWS, _COLUMNS = 24, 50
_NAMED = 12


def picture(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> str:
    """Heat map of client × class: the fuller a block, the larger the class's share of that client's images.

    ``counts`` int64 ``[clients, classes]`` is what `partition.counts` gives. Many clients are shown in groups of
    clients with the same largest class, side by side; many classes in groups of neighbours. The totals count
    images, and the last lines give clients by number of classes, and the spread of sizes.
    """
    clients, classes = counts.shape
    grouped = clients > _ROWS
    order = np.argsort(counts.argmax(axis=1), kind="stable") if grouped else np.arange(clients)
    rows = np.array_split(order, min(clients, _ROWS))
    columns = np.array_split(np.arange(classes), min(classes, _COLUMNS))
    table = np.array([[counts[np.ix_(r, c)].sum() for c in columns] for r in rows])
    width = 3 if len(columns) <= 20 else 1
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    labels = [f"{len(r)} clients" if grouped else f"client {r[0]}" for r in rows]
    margin = max(len(label) for label in labels)

    lines = [_header(class_names, len(columns) < classes)]
    if width == 3:
        lines.append(" " * margin + "  " + "".join(f"{k:^3d}" for k in range(classes)) + "  images")
    for label, share, row in zip(labels, shares, table, strict=True):
        blocks = "".join(_SHADES[_level(x, shares.max())] * width for x in share)
        lines.append(f"{label:>{margin}} |{blocks}| {row.sum():,}")
    sizes = counts.sum(axis=1)
    lines.append(
        f"{'all':>{margin}}  {clients} clients, {sizes.sum():,} images, {sizes.min():,} to {sizes.max():,} each"
    )
    held, how_many = np.unique((counts > 0).sum(axis=1), return_counts=True)
    spread = ", ".join(f"{h} ({m})" for h, m in zip(held, how_many, strict=True))
    lines.append(f"{'':>{margin}}  classes per client (clients): {spread}")
    lines.append(f"{'':>{margin}}  {_SHADES[-1]} is {shares.max():.1%} of a row's images")
    if grouped:
        lines.append(f"{'':>{margin}}  clients are sorted by their largest class; a row is a group")
    return "\n".join(lines)


def _level(share: float, largest: float) -> int:
    """0 for nothing; otherwise 1 to 8, so that a single image still shows."""
    return 0 if share == 0 else max(1, round(share / largest * (len(_SHADES) - 1)))


def _header(names: Sequence[str], neighbours: bool) -> str:
    if len(names) > _NAMED:
        return f"{len(names)} classes, {names[0]} … {names[-1]}" + (", neighbours joined" if neighbours else "")
    return "classes: " + ", ".join(f"{k} {name}" for k, name in enumerate(names))
