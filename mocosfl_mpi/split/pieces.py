"""The first layers of several clients that each see a piece of the same images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mocosfl_mpi.data.pieces import apart, together


class Pieces(nn.Module):
    """Every client's part on its own piece, and their maps put together."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[n, C, H, W]`` to merged smashed data ``[n, C, h, w]``."""
        pieces = apart(images, len(self.parts))
        return together([part(piece.contiguous()) for part, piece in zip(self.parts, pieces, strict=True)])
