"""A curve in one line of text, or as a small drawing (SVG)."""

from __future__ import annotations

import html

import numpy as np

from mocosfl_mpi.watch.glance import Series, thinned

_BLOCKS = "▁▂▃▄▅▆▇█"


def bars(values: Series, width: int) -> str:
    """At most ``width`` blocks between the smallest and the largest value; a gap is a point, a constant is low."""
    drawn = thinned(values, width)
    known = np.isfinite(drawn)
    if not known.any():
        return ""
    low, high = drawn[known].min(), drawn[known].max()
    heights = (drawn - low) / (high - low if high > low else 1.0) * (len(_BLOCKS) - 1)
    return "".join(_BLOCKS[round(height)] if there else "·" for height, there in zip(heights, known, strict=True))


def svg(values: Series, title: str, width: int = 220, height: int = 44) -> str:
    """The curve as an inline drawing, ``title`` for those who do not see it; a lone value is a dot."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return ""
    low, high = values[known].min(), values[known].max()
    right, scale = max(len(values) - 1, 1), (high - low) or 1.0
    points = [
        (3 + (width - 6) * place / right, height - 4 - (height - 8) * (values[place] - low) / scale) for place in known
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title, quote=True)}">'
        f'<polyline points="{line}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="3"/></svg>'
    )
