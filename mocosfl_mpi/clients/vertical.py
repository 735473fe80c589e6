"""Pieces of the same images for several clients, step by step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.clients.labelled import LabelledFeed
from mocosfl_mpi.split.pieces import apart


class VerticalFeed(LabelledFeed):
    """Draws one view of one batch for all clients, and gives each its own piece of it.

    Every client owns all images; batches and views are those of client 0.
    """

    def draw(self, clients: npt.NDArray[np.int64], epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Pieces ``[n, B, C, h, w]`` of the same views, normalised, and labels ``[n, B]``."""
        views, labels = super().draw(np.zeros(1, dtype=np.int64), epoch, step)
        pieces = apart(views[0], len(self._parts))
        return torch.stack([pieces[client] for client in clients]), labels.expand(len(clients), -1).contiguous()
