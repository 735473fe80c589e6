"""Passes of the main server through a trunk that rows enter at more than one place."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, zip_longest

import torch
from torch import Tensor, nn

from mocosfl_mpi.rows import Maps, Rows
from mocosfl_mpi.server.passes import Pullback, passes
from mocosfl_mpi.split.engine import Engine


class Stretches:
    """Passes, as in ``passes.Passes``, through a backbone that is cut into stretches: one, or two if ``between``.

    ``between``: layers that only clients with the shallower cut leave to the server. Their rows pass all stretches,
    those from the deeper cut only the last, and there they pass together. Rows of one cut are a tensor, which enters
    at the beginning.
    """

    def __init__(self, backbone: nn.Sequential, engine: Engine, between: int) -> None:
        edges = [0, between, len(backbone)]
        parts = [backbone[start:stop] for start, stop in pairwise(edges)] if between else [backbone]
        self._stretches = [passes(part, engine) for part in parts]
        self._used = [False] * len(parts)
        """Through which of them gradients have come in this step."""

    def begin(self) -> None:
        """The weights of this step stand."""
        for stretch in self._stretches:
            stretch.begin()
        self._used = [False] * len(self._stretches)

    def end(self) -> None:
        """The parameters' ``grad`` is that of all pullbacks since ``begin``; None where no row has passed."""
        for stretch, used in zip(self._stretches, self._used, strict=True):
            if used:
                stretch.end()

    def forward(self, rows: Tensor | Rows) -> Tensor:
        """The backbone's output, rows in their order; keeps no graph."""
        y: Tensor | None = None
        for stretch, x in zip_longest(self._stretches, reversed(_parts(rows))):
            y = _joined(x, y)
            y = stretch.forward(y) if y is not None else None
        assert y is not None, "no rows"
        return y

    def forward_with_pullback(self, rows: Maps, *, wants_input: bool) -> tuple[Tensor, Callable[[Tensor], Maps | None]]:
        """The output, detached, and the function from its gradient to that at ``rows`` (None unless wanted)."""
        entering = _parts(rows)[::-1]
        back: list[Pullback | None] = []
        y: Tensor | None = None
        for stretch, x in zip(self._stretches, entering, strict=True):
            wants = wants_input or y is not None
            y = _joined(x, y)
            pullback = None
            if y is not None:
                y, pullback = stretch.forward_with_pullback(y, wants_input=wants)
            back.append(pullback)
        assert y is not None, "no rows"

        def through(gradient: Tensor) -> Rows | None:
            """From the last stretch to the first; what does not go further back belongs to the rows that enter."""
            found, on = [], gradient
            for number in range(len(back) - 1, -1, -1):
                its, x = back[number], entering[number]
                if its is not None:
                    self._used[number] = True
                    before = its(on)
                    if before is None:
                        return None
                    own, on = before[: len(x)], before[len(x) :]
                else:
                    own = torch.empty_like(x)
                found.append(own)
            return Rows(tuple(found)) if wants_input else None

        if isinstance(rows, Rows):
            return y, through

        def only(gradient: Tensor) -> Tensor | None:
            found = through(gradient)
            return found.only if found else None

        return y, only


def _parts(rows: Tensor | Rows) -> tuple[Tensor, ...]:
    return (rows,) if isinstance(rows, Tensor) else rows.parts


def _joined(entering: Tensor | None, passed: Tensor | None) -> Tensor | None:
    """Rows that enter, and behind them those that have come so far; None where there are neither."""
    parts = [part for part in (entering, passed) if part is not None and len(part)]
    return torch.cat(parts) if len(parts) > 1 else parts[0] if parts else None
