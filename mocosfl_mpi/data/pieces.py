"""Images and maps cut into pieces and put together again: halves side by side, or quadrants row by row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GRIDS = {2: (1, 2), 4: (2, 2)}
"""Rows and columns of so many pieces."""


def apart(whole: Tensor, count: int) -> list[Tensor]:
    """The ``count`` equal pieces of ``[..., H, W]``, row by row."""
    rows, columns = GRIDS[count]
    return [piece for strip in whole.chunk(rows, dim=-2) for piece in strip.chunk(columns, dim=-1)]


def together(pieces: Sequence[Tensor]) -> Tensor:
    """The inverse of ``apart``."""
    rows, columns = GRIDS[len(pieces)]
    strips = [torch.cat(list(pieces[row * columns : (row + 1) * columns]), dim=-1) for row in range(rows)]
    return torch.cat(strips, dim=-2)
