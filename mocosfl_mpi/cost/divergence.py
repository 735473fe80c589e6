"""How far client models have drifted: from their mean, and online from momentum.

Differences and sums are in float64, and a row's result does not depend on the other rows: numpy sums each contiguous
row pairwise, whatever the number of rows or threads, so that it is the same on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_COLUMNS = 2**16
"""Weights per client held in float64 at once: 50 MiB for 100 clients."""


def layer_distance(a: Tensor, b: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
    """‖a_i - b_i‖₂ per parameter tensor, un-squared: float64 ``[n, layers]``.

    ``a [n, P]`` are stacked flat weights, ``b [n, P]`` or ``[P]``, ``spans`` the (start, stop) of each tensor. Summed
    over layers and averaged over clients and syncs this is the divergence of MocoSFL (ICLR 2023) eq. 4.

    Raises
    ------
    ValueError
        Shapes that do not fit, or a span outside 0 … P.
    """
    _check(a, b)
    for start, stop in spans:
        if not 0 <= start <= stop <= a.shape[1]:
            raise ValueError(f"span ({start}, {stop}) lies outside 0 … {a.shape[1]}")
    if not spans:
        return torch.zeros(len(a), 0, dtype=torch.float64)
    return torch.stack([_norm(a, b, start, stop) for start, stop in spans], dim=1)


def relative_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i - b_i‖₂ / ‖a_i‖₂ over the whole vector: float64 ``[n]``, for ``a [n, P]`` and ``b [n, P]`` or ``[P]``.

    0 where both are zero, infinite where only ``a_i`` is.
    """
    _check(a, b)
    return _ratio(_norm(a, b, 0, a.shape[1]), _norm(a, None, 0, a.shape[1]))


def spread(momentum: Tensor, mean: Tensor) -> Tensor:
    """‖C'_i - mean‖₂ / ‖mean‖₂ for momentum models ``[n, P]`` and their mean ``[P]``: float64 ``[n]``.

    Right after a synchronisation 0 in MonAcoSFL, which averages momentum models, and not in MocoSFL.
    """
    _check(momentum, mean)
    size = _norm(mean.reshape(1, -1), None, 0, mean.numel())
    return _ratio(_norm(momentum, mean, 0, momentum.shape[1]), size)


def _check(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.shape not in (a.shape, a.shape[1:]):
        raise ValueError(f"expected weights [n, P] and [n, P] or [P], not {list(a.shape)} and {list(b.shape)}")


def _ratio(distance: Tensor, size: Tensor) -> Tensor:
    return torch.where(distance == 0.0, 0.0, distance / size)


def _norm(a: Tensor, b: Tensor | None, start: int, stop: int) -> Tensor:
    """L2 norm of the rows of ``a - b`` (or of ``a``) between two columns: float64 ``[n]``."""
    squares = np.zeros(len(a), dtype=np.float64)
    for left in range(start, stop, _COLUMNS):
        right = min(left + _COLUMNS, stop)
        rows = a[:, left:right].detach().double()
        if b is not None:
            rows = rows - b[..., left:right].detach().double()
        squares += np.square(np.ascontiguousarray(rows.cpu().numpy())).sum(axis=1)
    return torch.from_numpy(np.sqrt(squares))
