"""Clients' rows on their way between their ranks and the server, a bounded part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange

SLAB = 2**26
"""Bytes of clients' rows that travel at once for a checkpoint."""

Ids = npt.NDArray[np.int64]


class Slabs:
    """Moves rows of ``dtype``, one of each client, in slabs of at most ``SLAB`` bytes."""

    def __init__(self, cluster: Cluster, exchange: Exchange, dtype: torch.dtype) -> None:
        self._cluster = cluster
        self._exchange = exchange
        self._dtype = dtype

    def gather(
        self, kind: str, clients: Ids, owners: Ids, width: int, rows: Mapping[int, Tensor]
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Rows ``[width]`` of ``clients`` from their owners to the server, in slabs. Collective."""
        slab = max(1, SLAB // max(1, width * self._dtype.itemsize))
        for number, start in enumerate(range(0, len(clients), slab)):
            part, sources = clients[start : start + slab], owners[start : start + slab]
            mine = {int(c): rows[int(c)] for c, o in zip(part, sources, strict=True) if o == self._cluster.rank}
            moves = [(int(c), int(o), 0) for c, o in zip(part, sources, strict=True)]
            mine |= self._exchange.relocate(mine, width, self._dtype, moves)
            if self._cluster.serves:
                stacked = torch.stack([mine[int(c)] for c in part])
                yield f"{kind}-{number:06d}", {"clients": torch.from_numpy(part), "rows": stacked}

    def scatter(
        self, parts: Iterable[Mapping[str, Tensor]], width: int, owner: Callable[[int], int]
    ) -> Iterator[tuple[list[int], dict[int, Tensor]]]:
        """Slabs of rows from the server to their owners: all clients of a slab, and the rows that came here.

        Collective.
        """
        source = iter(parts)
        while True:
            part = next(source, None) if self._cluster.serves else None
            clients = self._cluster.broadcast_json(part["clients"].tolist() if part else None)
            if clients is None:
                return
            rows = dict(zip(clients, part["rows"], strict=True)) if part else {}
            arrived = self._exchange.relocate(rows, width, self._dtype, [(c, 0, owner(c)) for c in clients])
            yield clients, rows | arrived
