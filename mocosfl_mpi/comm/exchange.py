"""Rows up to the server, rows down to the hosts, in client order. MPI moves numbers and never adds floats.

A message with a ``window`` passes between rank 0 and the ranks of its node through shared memory of that name: hosts
write their rows where the server reads them, and the other way round. The ranks of other nodes send theirs. What has
come through windows stands until one of them is used again: a rank that asks for that is done with all of it. With one
rank there is nothing to pass, and rows stay on their device. All else that comes out of here lies in host memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI
from torch import Tensor

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.placement import Deal
from mocosfl_mpi.comm.windows import Windows

SLAB = 2**26  # numbers gathered at once while averaging: bounds the server's memory


def raw(tensor: Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of a contiguous tensor, in place. numpy and MPI know no bfloat16, and need not: rows only move."""
    return tensor.view(-1).view(torch.uint8).numpy()


class Exchange:
    """Collectives over the clients of the current deal, with the bytes this rank has moved by messages."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._comm = cluster.comm
        self._windows = Windows(cluster)
        self._filled: set[str] = set()
        """Windows that hold what somebody may still read."""
        self._rows: dict[tuple[torch.dtype, int], MPI.Datatype] = {}
        self._clients = np.zeros(cluster.size, dtype=np.int64)
        self._deal: Deal | None = None
        self._work: dict[int | None, npt.NDArray[np.int64]] = {}
        self._moved = 0

    def begin(self, deal: Deal) -> None:
        """All traffic from here on is that of ``deal``'s clients."""
        ranks = range(self._cluster.size)
        self._clients = np.array([deal.clients_of(rank) for rank in ranks], dtype=np.int64)
        self._deal = deal
        self._work = {}

    def _work_of(self, kind: int | None) -> npt.NDArray[np.int64]:
        """What each rank computes of the clients of a kind (None = of all), in batches of the least."""
        assert self._deal is not None
        if kind not in self._work:
            found = [self._deal.work_of(rank, kind) for rank in range(self._cluster.size)]
            self._work[kind] = np.array(found, dtype=np.int64)
        return self._work[kind]

    @property
    def kinds(self) -> list[int]:
        """Of which kind the clients of each block of this rank are."""
        return self._deal.kinds_of(self._cluster.rank) if self._deal else []

    def take_bytes(self) -> int:
        """Bytes this rank has sent and received since the last call; what passed through windows is not among them."""
        moved, self._moved = self._moved, 0
        return moved

    def take_notice(self) -> str:
        """What the user should know about windows, once, on rank 0."""
        return self._windows.take_notice()

    def _row(self, dtype: torch.dtype, width: int) -> MPI.Datatype:
        """One row as an MPI type: counts are rows then, and stay below 2^31 however many bytes they make."""
        if (dtype, width) not in self._rows:
            self._rows[dtype, width] = MPI.BYTE.Create_contiguous(width * dtype.itemsize).Commit()
        return self._rows[dtype, width]

    def up(
        self, parts: Sequence[Tensor], shape: Sequence[int], dtype: torch.dtype, *, window: str = ""
    ) -> Tensor | None:
        """One message of ``shape`` from each client: ``[lanes, *shape]`` per block to ``[clients, *shape]``.

        All messages in client order on the server, None elsewhere.
        """
        return self._gather(parts, self._clients, shape, dtype, window)

    def rows_up(
        self,
        parts: Sequence[Tensor],
        rows: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        kind: int | None = None,
        *,
        window: str = "",
    ) -> Tensor | None:
        """Batches that may differ: ``[lanes, rows, *shape]`` per block to ``[rows of all, *shape]``, clients in order.

        A client has ``rows`` rows times its weight in the deal. Blocks of one ``kind`` of clients, or all.
        """
        return self._gather([part.flatten(0, 1) for part in parts], rows * self._work_of(kind), shape, dtype, window)

    def _gather(
        self,
        parts: Sequence[Tensor],
        counts: npt.NDArray[np.int64],
        shape: Sequence[int],
        dtype: torch.dtype,
        window: str,
    ) -> Tensor | None:
        if window:
            place = self._windows.place(window, int(counts.sum()), shape, dtype)
            if place is not None:
                return self._gather_through(window, place, parts, counts)
            if self._cluster.size == 1 and parts:
                return torch.cat(list(parts)).contiguous()
        mine = torch.cat(list(parts)).cpu().contiguous() if parts else torch.empty(0, *shape, dtype=dtype)
        everything = torch.empty(int(counts.sum()), *shape, dtype=dtype) if self._cluster.serves else None
        row = self._row(dtype, math.prod(shape))
        receive = [raw(everything), counts, None, row] if everything is not None else None
        self._cluster.meet()
        self._comm.Gatherv([raw(mine), len(mine), row], receive, root=0)
        self._count(mine, everything)
        return everything

    def _gather_through(
        self, window: str, place: Tensor, parts: Sequence[Tensor], counts: npt.NDArray[np.int64]
    ) -> Tensor | None:
        cluster, windows = self._cluster, self._windows
        near, far, own = windows.near, windows.far, int(counts[cluster.rank])
        self._wait_for_readers(window)
        if near[cluster.rank] and own:
            for part, target in zip(parts, self._of(cluster.rank, place, counts, parts), strict=True):
                target.copy_(part)
        windows.synchronise(window)
        cluster.meet()  # every host of the node has written
        windows.synchronise(window)
        if far is not None:
            row = self._row(place.dtype, math.prod(place.shape[1:]))
            mine = place[:0] if cluster.serves else torch.cat([place, *parts]).contiguous()
            receive = [raw(place), *self._apart(counts), row] if cluster.serves else None
            far.Gatherv([raw(mine), len(mine), row], receive, root=0)
            self._count_apart(place, counts)
        return place if cluster.serves else None

    def _wait_for_readers(self, window: str) -> None:
        """Until all ranks are done with what a window held; once in a step, as its windows are let go together."""
        if window in self._filled:
            self._cluster.meet()
            self._filled.clear()
        self._filled.add(window)

    @staticmethod
    def _of(
        rank: int, place: Tensor, counts: npt.NDArray[np.int64], parts: Sequence[Tensor] | Sequence[int]
    ) -> Sequence[Tensor]:
        """The rows of ``rank`` in a window, in pieces as long as ``parts``."""
        before, own = int(counts[:rank].sum()), int(counts[rank])
        sizes = [part if isinstance(part, int) else len(part) for part in parts]
        return list(place[before : before + own].split(sizes))

    def _apart(self, counts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows of rank 0 and of each rank of another node, and where they begin among all."""
        apart = ~self._windows.near
        apart[0] = True
        return counts[apart], (np.cumsum(counts) - counts)[apart]

    def _count_apart(self, place: Tensor, counts: npt.NDArray[np.int64]) -> None:
        """Count the bytes of ``counts`` rows that passed between nodes."""
        rows = int(self._apart(counts)[0].sum()) if self._cluster.serves else int(counts[self._cluster.rank])
        self._moved += rows * math.prod(place.shape[1:]) * place.element_size()

    def down(
        self,
        everything: Tensor | None,
        lanes: Sequence[int],
        shape: Sequence[int],
        dtype: torch.dtype,
        *,
        window: str = "",
    ) -> list[Tensor]:
        """The inverse of ``up``: ``[clients, *shape]`` on the server to ``[lanes, *shape]`` for each block here."""
        return self._scatter(everything, lanes, self._clients, shape, dtype, window)

    def rows_down(
        self,
        everything: Tensor | None,
        batches: Sequence[tuple[int, int]],
        rows: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        kind: int | None = None,
        *,
        window: str = "",
    ) -> list[Tensor]:
        """The inverse of ``rows_up``; ``batches``: lanes and rows of each of them, for each block here."""
        sizes = [lanes * own for lanes, own in batches]
        parts = self._scatter(everything, sizes, rows * self._work_of(kind), shape, dtype, window)
        return [part.unflatten(0, batch) for part, batch in zip(parts, batches, strict=True)]

    def _scatter(
        self,
        everything: Tensor | None,
        sizes: Sequence[int],
        counts: npt.NDArray[np.int64],
        shape: Sequence[int],
        dtype: torch.dtype,
        window: str,
    ) -> list[Tensor]:
        if window:
            place = self._windows.place(window, int(counts.sum()), shape, dtype)
            if place is not None:
                return self._scatter_through(window, place, everything, sizes, counts)
            if self._cluster.size == 1:
                assert everything is not None
                return list(everything.reshape(-1, *shape).split(list(sizes)))
        mine = torch.empty(sum(sizes), *shape, dtype=dtype)
        row = self._row(dtype, math.prod(shape))
        send = [raw(everything.cpu().contiguous()), counts, None, row] if everything is not None else None
        self._cluster.meet()
        self._comm.Scatterv(send, [raw(mine), len(mine), row], root=0)
        self._count(mine, everything)
        return list(mine.split(list(sizes)))

    def _scatter_through(
        self,
        window: str,
        place: Tensor,
        everything: Tensor | None,
        sizes: Sequence[int],
        counts: npt.NDArray[np.int64],
    ) -> list[Tensor]:
        cluster, windows = self._cluster, self._windows
        self._wait_for_readers(window)
        if everything is not None:
            place.view(everything.shape).copy_(everything)
        windows.synchronise(window)
        cluster.meet()  # the server has written
        windows.synchronise(window)
        mine = place
        if windows.far is not None:
            row = self._row(place.dtype, math.prod(place.shape[1:]))
            mine = place.new_empty(0 if cluster.serves else sum(sizes), *place.shape[1:])
            send = [raw(place), *self._apart(counts), row] if cluster.serves else None
            windows.far.Scatterv(send, [raw(mine), len(mine), row], root=0)
            self._count_apart(place, counts)
        if windows.near[cluster.rank]:
            return list(self._of(cluster.rank, place, counts, sizes))
        return list(mine.split(list(sizes)))

    def _count(self, mine: Tensor, everything: Tensor | None) -> None:
        self._moved += (mine.numel() + (everything.numel() if everything is not None else 0)) * mine.element_size()

    def mean(
        self, stacks: Sequence[Tensor], width: int, dtype: torch.dtype, weights: npt.NDArray[np.float64]
    ) -> Tensor:
        """Weighted mean over the pool of one state ``[lanes, width]`` per block: ``[width]`` on every rank.

        Clients whose weight is 0 are left out.

        The server adds in float64, client after client, so the sum does not depend on who hosted whom, and the
        mean of equal float32 models is that model. Gathered in slabs of columns to bound the server's memory.
        """
        mean = torch.empty(width, dtype=dtype)
        columns = max(1, SLAB // max(1, len(weights)))
        for start in range(0, width, columns):
            part = slice(start, min(start + columns, width))
            rows = self.up([stack[:, part] for stack in stacks], [part.stop - part.start], dtype)
            if rows is not None:
                total = torch.zeros(part.stop - part.start, dtype=torch.float64)
                for place in np.flatnonzero(weights):  # of others nothing is read: they may have no such numbers
                    total.add_(rows[place], alpha=float(weights[place]))
                mean[part] = (total / float(weights.sum())).to(dtype)
        return self.broadcast(mean)

    def together(self, stacks: Sequence[Tensor], width: int, dtype: torch.dtype) -> Tensor:
        """The state ``[lanes, width]`` per block of all clients in their order, ``[clients·width]``, on every rank."""
        rows = self.up(stacks, [width], dtype)
        found = torch.empty(int(self._clients.sum()) * width, dtype=dtype) if rows is None else rows.flatten()
        return self.broadcast(found)

    def broadcast(self, vector: Tensor) -> Tensor:
        """The server's vector on every rank, in place."""
        self._cluster.meet()
        for part in vector.split(SLAB):
            self._comm.Bcast([raw(part), MPI.BYTE], root=0)
        self._moved += vector.numel() * vector.element_size()
        return vector

    def relocate(
        self, rows: dict[int, Tensor], width: int, dtype: torch.dtype, moves: Sequence[tuple[int, int, int]]
    ) -> dict[int, Tensor]:
        """Carry clients' rows ``[width]`` between ranks; ``moves`` lists (client, from, to), known to all.

        Returns the rows that arrived here; rows that left are removed from ``rows``.
        """
        moves = [move for move in moves if move[1] != move[2]]
        if not moves:
            return {}
        rank, size = self._cluster.rank, self._cluster.size
        leaving = sorted((m for m in moves if m[1] == rank), key=lambda m: (m[2], m[0]))
        arriving = sorted((m for m in moves if m[2] == rank), key=lambda m: (m[1], m[0]))
        send = torch.stack([rows.pop(m[0]) for m in leaving]) if leaving else torch.empty(0, width, dtype=dtype)
        received = torch.empty(len(arriving), width, dtype=dtype)
        out = np.bincount([m[2] for m in leaving], minlength=size).astype(np.int64)
        into = np.bincount([m[1] for m in arriving], minlength=size).astype(np.int64)
        row = self._row(dtype, width)
        self._cluster.meet()
        self._comm.Alltoallv([raw(send), out, None, row], [raw(received), into, None, row])
        self._moved += (send.numel() + received.numel()) * dtype.itemsize
        return {m[0]: received[i] for i, m in enumerate(arriving)}
