"""Batches of two sources: the images that an expert learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.clients.feed import Feed


class MixedFeed(Feed):
    """Draws views of a batch from each of several feeds, and puts them one behind the other: target first.

    Each has images, order and normalisation of its own. As published, the target's few images come up again and again
    while the auxiliary ones are passed over once.
    """

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds

    def draw(self, clients: npt.NDArray[np.int64], epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Two views of the clients' batches: ``[n, B of all feeds, C, H, W]`` each."""
        first, second = zip(*(feed.draw(clients, epoch, step) for feed in self._feeds), strict=True)
        return torch.cat(first, dim=1), torch.cat(second, dim=1)
