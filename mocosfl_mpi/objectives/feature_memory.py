"""The feature memory: a ring of past keys that serve as negatives, shared by all clients or one for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.streams import Streams

Rows = Sequence[int] | None


def noise(memories: int, length: int, key_dim: int, streams: Streams, dtype: torch.dtype) -> Tensor:
    """Unit keys ``[memories, length, key_dim]`` to begin with, from a stream."""
    generator = torch.Generator().manual_seed(streams.torch_seed("feature memory"))
    drawn = torch.randn(memories, length, key_dim, generator=generator, dtype=torch.float64)
    return F.normalize(drawn, dim=2).to(dtype)


def overwrite(memories: Tensor, keys: Tensor, written: npt.NDArray[np.int64]) -> None:
    """Overwrite the oldest of ``memories [lanes, length, d]`` with ``keys [lanes, n, d]``, in place.

    ``written``: keys that each memory had been given before. More keys than places: only the newest stay.
    """
    length = memories.shape[1]
    kept = keys[:, -length:]
    ends = torch.from_numpy(written)[:, None] + keys.shape[1]
    places = (ends + torch.arange(-kept.shape[1], 0)) % length
    memories[torch.arange(len(memories))[:, None], places] = kept


class FeatureMemory:
    """``[memories, length, d]`` unit keys and a write position for each memory.

    One memory for everybody (feature sharing, MocoSFL's point), or one per client with an equal part of the
    total length. Rows are addressed by client id (the published code mixes ids with pool positions).
    """

    def __init__(
        self,
        length: int,
        key_dim: int,
        clients: int,
        *,
        shared: bool,
        streams: Streams,
        dtype: torch.dtype,
        device: torch.device | None = None,
    ) -> None:
        self.shared = shared
        memories = 1 if shared else clients
        self.keys = noise(memories, length // memories, key_dim, streams, dtype).to(device)
        self.position = np.zeros(memories, dtype=np.int64)

    def similarities(self, queries: Tensor, clients: npt.NDArray[np.int64], rows: Rows = None) -> Tensor:
        """Cosines of unit queries ``[n, d]`` with the negatives of their clients: ``[n, length]``.

        ``clients`` are the ids whose rows stand one after the other in ``queries``; ``rows`` of each, None = as many.
        """
        if self.shared:
            return queries @ self.keys[0].T
        if rows is not None and len(set(rows)) > 1:
            parts = zip(queries.split(list(rows)), clients.tolist(), strict=True)
            return torch.cat([part @ self.keys[client].T for part, client in parts])
        mine = self.keys[torch.from_numpy(clients)]
        grouped = queries.view(len(clients), -1, queries.shape[1])
        return (grouped @ mine.transpose(1, 2)).flatten(0, 1)

    def enqueue(self, keys: Tensor, clients: npt.NDArray[np.int64], rows: Rows = None) -> None:
        """Overwrite the oldest keys with ``keys [blocks, n, d]``, rows of the clients in order within each block.

        Shared: block after block, as they stand. Private: a client's rows of every block go into its memory;
        ``rows`` of each client, None = equally many.
        """
        if self.shared:
            self._write(0, keys.flatten(0, 1))
            return
        each = keys.shape[1] // len(clients) if rows is None else list(rows)
        for client, part in zip(clients, keys.split(each, dim=1), strict=True):
            self._write(int(client), part.flatten(0, 1))

    def _write(self, memory: int, keys: Tensor) -> None:
        length = self.keys.shape[1]
        start = int(self.position[memory])
        end = start + len(keys)
        kept = keys[-length:]  # more keys than places: only the newest stay
        places = torch.arange(end - len(kept), end) % length
        self.keys[memory, places] = kept
        self.position[memory] = end % length

    def newest_first(self, memory: int = 0) -> Tensor:
        """Keys ``[length, d]`` of one memory, the most recently written first."""
        return self.keys[memory].roll(-int(self.position[memory]), dims=0).flip(0)
