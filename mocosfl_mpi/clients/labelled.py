"""The images of each client with their labels, step by step: what supervised methods learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.data.crop_flip import DRAWS, CropFlip
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.split.engine import CPU
from mocosfl_mpi.streams import Streams


class LabelledFeed(Feed):
    """Draws one view of every client's next batch, and its labels in the place of a second view.

    ``views`` says size, mean and standard deviation; batches are drawn as those of ``Feed``.
    """

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        parts: Sequence[npt.NDArray[np.int64]],
        batch_size: int,
        views: ViewMaker,
        streams: Streams,
        factors: npt.NDArray[np.int64] | None = None,
        device: torch.device = CPU,
    ) -> None:
        super().__init__(pixels, parts, batch_size, views, streams, factors, device)
        self._labels = labels
        self._crop = CropFlip(views.size, views.config.flip_probability, views.mean, views.std, views.dtype)

    def draw(self, clients: npt.NDArray[np.int64], epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Views ``[n, B, C, H, W]``, normalised, and labels ``[n, B]`` of the clients' batches."""
        chosen = np.stack([self.indices(int(client), epoch, step) for client in clients])
        count = chosen.shape[1] * DRAWS
        draws = self._streams.uniforms("views", epoch=epoch, step=step, clients=clients, count=count)
        views = self._crop(self._images(chosen), draws.reshape(*chosen.shape, DRAWS))
        return views, torch.from_numpy(self._labels[chosen]).to(self._device)
