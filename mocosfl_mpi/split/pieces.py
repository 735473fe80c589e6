"""Images and maps cut into pieces and put together again: halves side by side, or quadrants row by row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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


class Pieces(nn.Module):
    """Every client's part on its own piece, and their maps put together."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[n, C, H, W]`` to merged smashed data ``[n, C, h, w]``."""
        pieces = apart(images, len(self.parts))
        return together([part(piece.contiguous()) for part, piece in zip(self.parts, pieces, strict=True)])
