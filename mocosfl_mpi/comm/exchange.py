"""Rows up to the server, rows down to the hosts, in client order. MPI moves numbers and never adds floats.

What comes out of here lies in host memory. Smashed data and their gradients have a way of their own (``stream``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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
        self.cluster = cluster
        self.windows = Windows(cluster)
        self._row_types: dict[tuple[torch.dtype, int], MPI.Datatype] = {}
        self._deal: Deal | None = None
        self._moved = 0

    def begin(self, deal: Deal) -> None:
        """All traffic from here on is that of ``deal``'s clients."""
        self._deal = deal

    @property
    def deal(self) -> Deal:
        """Whose traffic this is."""
        assert self._deal is not None
        return self._deal

    @property
    def kinds(self) -> list[int]:
        """Of which kind the clients of each block of this rank are."""
        return self.deal.kinds_of(self.cluster.rank)

    def count(self, size: int) -> None:
        """So many bytes more were sent or received by this rank."""
        self._moved += size

    def take_bytes(self) -> int:
        """Bytes this rank has sent and received since the last call; what passed through windows is not among them."""
        moved, self._moved = self._moved, 0
        return moved

    def take_notice(self) -> str:
        """What the user should know about windows, once, on rank 0."""
        return self.windows.take_notice()

    def row(self, dtype: torch.dtype, width: int) -> MPI.Datatype:
        """One row as an MPI type: counts are rows then, and stay below 2^31 however many bytes they make."""
        if (dtype, width) not in self._row_types:
            self._row_types[dtype, width] = MPI.BYTE.Create_contiguous(width * dtype.itemsize).Commit()
        return self._row_types[dtype, width]

    def up(self, parts: Sequence[Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """One message of ``shape`` from each client: ``[lanes, *shape]`` per block to ``[clients, *shape]``.

        All messages in client order on the server, None elsewhere.
        """
        return self._gather(parts, [len(block) for block in self.deal.blocks], shape, dtype)

    def rows_up(self, parts: Sequence[Tensor], rows: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """Batches that may differ: ``[lanes, rows, *shape]`` per block to ``[rows of all, *shape]``, clients in order.

        A client has ``rows`` rows times its weight in the deal.
        """
        return self._gather([part.flatten(0, 1) for part in parts], (rows * self.deal.work).tolist(), shape, dtype)

    def _turns(self, sizes: Sequence[int]) -> Iterator[tuple[slice, npt.NDArray[np.int64], bool]]:
        """Wave by wave of blocks with so many rows: which rows, how many of each rank, whether some are this rank's."""
        start = 0
        for wave in self.deal.waves:
            counts = np.zeros(self.cluster.size, dtype=np.int64)
            counts[[self.deal.owners[block] for block in wave]] = [sizes[block] for block in wave]
            stop = start + int(counts.sum())
            yield slice(start, stop), counts, bool(counts[self.cluster.rank])
            start = stop

    def _gather(
        self, parts: Sequence[Tensor], sizes: Sequence[int], shape: Sequence[int], dtype: torch.dtype
    ) -> Tensor | None:
        own = iter(parts)
        everything = torch.empty(sum(sizes), *shape, dtype=dtype) if self.cluster.serves else None
        row = self.row(dtype, math.prod(shape))
        self.cluster.meet()
        for at, counts, mine in self._turns(sizes):
            part = next(own).cpu().contiguous() if mine else torch.empty(0, dtype=dtype)
            receive = [raw(everything[at]), counts, None, row] if everything is not None else None
            self.cluster.comm.Gatherv([raw(part), int(counts[self.cluster.rank]), row], receive, root=0)
            self._count(part)
        if everything is not None:
            self._count(everything)
        return everything

    def down(
        self, everything: Tensor | None, lanes: Sequence[int], shape: Sequence[int], dtype: torch.dtype
    ) -> list[Tensor]:
        """The inverse of ``up``: ``[clients, *shape]`` on the server to ``[lanes, *shape]`` for each block here."""
        parts = [torch.empty(count, *shape, dtype=dtype) for count in lanes]
        own = iter(parts)
        row = self.row(dtype, math.prod(shape))
        source = everything.cpu().contiguous() if everything is not None else None
        self.cluster.meet()
        for at, counts, mine in self._turns([len(block) for block in self.deal.blocks]):
            part = next(own) if mine else torch.empty(0, dtype=dtype)
            send = [raw(source[at]), counts, None, row] if source is not None else None
            self.cluster.comm.Scatterv(send, [raw(part), int(counts[self.cluster.rank]), row], root=0)
            self._count(part)
        if source is not None:
            self._count(source)
        return parts

    def _count(self, moved: Tensor) -> None:
        self.count(moved.numel() * moved.element_size())

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
        found = torch.empty(len(self.deal.pool) * width, dtype=dtype) if rows is None else rows.flatten()
        return self.broadcast(found)

    def broadcast(self, vector: Tensor) -> Tensor:
        """The server's vector on every rank, in place."""
        self.cluster.meet()
        for part in vector.split(SLAB):
            self.cluster.comm.Bcast([raw(part), MPI.BYTE], root=0)
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
        rank, size = self.cluster.rank, self.cluster.size
        leaving = sorted((m for m in moves if m[1] == rank), key=lambda m: (m[2], m[0]))
        arriving = sorted((m for m in moves if m[2] == rank), key=lambda m: (m[1], m[0]))
        send = torch.stack([rows.pop(m[0]) for m in leaving]) if leaving else torch.empty(0, width, dtype=dtype)
        received = torch.empty(len(arriving), width, dtype=dtype)
        out = np.bincount([m[2] for m in leaving], minlength=size).astype(np.int64)
        into = np.bincount([m[1] for m in arriving], minlength=size).astype(np.int64)
        row = self.row(dtype, width)
        self.cluster.meet()
        self.cluster.comm.Alltoallv([raw(send), out, None, row], [raw(received), into, None, row])
        self._moved += (send.numel() + received.numel()) * dtype.itemsize
        return {m[0]: received[i] for i, m in enumerate(arriving)}
