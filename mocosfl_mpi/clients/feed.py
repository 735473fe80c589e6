"""The images of each client, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.data.views import DRAWS, ViewMaker
from mocosfl_mpi.split.engine import CPU, has_room
from mocosfl_mpi.streams import Streams

SLAB = 4096
"""Images that are put on a device at once, through a copy: ranks read one array, which nobody may write to."""


class Feed:
    """Draws two views of every client's next batch from the shared images.

    An epoch shuffles each client's images afresh and runs through them in batches; a client that reaches the
    end goes on with another shuffle, so batches are always full and nothing is dropped. The order is a function
    of (seed, epoch, client, pass): there is no cursor to save. ``factors [clients]``: multiples of ``batch_size``.
    Views are made, and come out, on ``device``.
    """

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        parts: Sequence[npt.NDArray[np.int64]],
        batch_size: int,
        views: ViewMaker,
        streams: Streams,
        factors: npt.NDArray[np.int64] | None = None,
        device: torch.device = CPU,
    ) -> None:
        self._pixels = pixels
        self._device = device
        self._parts = parts
        self._batch = batch_size * (np.ones(len(parts), dtype=np.int64) if factors is None else factors)
        self._views = views
        self._streams = streams

    def indices(self, client: int, epoch: int, step: int) -> npt.NDArray[np.int64]:
        """Which images ``client`` takes at a step: ``[B]`` indices into the training images."""
        images, size = self._parts[client], int(self._batch[client])
        places = np.arange(step * size, (step + 1) * size)
        passes, within = np.divmod(places, len(images))
        batch = np.empty(size, dtype=np.int64)
        for number in range(int(passes[0]), int(passes[-1]) + 1):
            order = self._streams.generator("order", epoch, client, number).permutation(images)
            batch[passes == number] = order[within[passes == number]]
        return batch

    def _images(self, chosen: npt.NDArray[np.int64]) -> Tensor:
        """The images of these numbers, where views are made."""
        if self._there is not None:
            return self._there[torch.from_numpy(chosen).to(self._device)]
        return torch.from_numpy(self._pixels[chosen]).to(self._device)

    @cached_property
    def _there(self) -> Tensor | None:
        """All images on the device, where it has room; from the first batch on, so not on a rank that hosts nobody."""
        if not has_room(self._device, self._pixels.nbytes):
            return None
        there = torch.empty(self._pixels.shape, dtype=torch.uint8, device=self._device)
        for start in range(0, len(there), SLAB):
            there[start : start + SLAB] = torch.from_numpy(self._pixels[start : start + SLAB].copy()).to(self._device)
        return there

    def draw(self, clients: npt.NDArray[np.int64], epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Two views of the clients' batches: ``[n, B, C, H, W]`` each, normalised; all have as large ones."""
        size = int(self._batch[clients[0]])
        chosen = np.stack([self.indices(int(client), epoch, step) for client in clients])
        draws = self._streams.uniforms("views", epoch=epoch, step=step, clients=clients, count=size * 2 * DRAWS)
        return self._views(self._images(chosen), draws.reshape(len(clients), size, 2, DRAWS))
