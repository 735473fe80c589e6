"""Memory that rank 0 shares with the ranks of its node: what one writes the other reads where it lies."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI
from torch import Tensor

from mocosfl_mpi.comm.cluster import Cluster

SHARED = "/dev/shm"  # noqa: S108 - where Linux keeps shared memory, MPI's too
SPARE = 2**23
"""Bytes that stay free beside a window."""
ALIGNED = 64
"""Bytes: as torch places its own tensors; fast convolutions and products may depend on it, to the last bit."""


def room() -> int:
    """Bytes of shared memory that this node still has; 0 where it has none."""
    try:
        found = os.statvfs(SHARED)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


class Windows:
    """Shared windows by name, each as large as the largest message so far, which all ranks know.

    Every method but ``synchronise`` is for all ranks together, those of other nodes too. There are none with one rank,
    nor where no other rank is on the node of rank 0; and none any more as soon as one could not be had (``take_notice``
    says why).

    A window's memory has no name in the file system once every rank of the node has it: both MPICH and Open MPI unlink
    it, so that nothing of it outlives a rank that is killed.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._held: dict[str, tuple[MPI.Win, npt.NDArray[np.uint8]]] = {}
        self._sizes: dict[str, int] = {}
        self._node: MPI.Intracomm | None = None
        self._wanted = cluster.size > 1
        self._notice = ""
        self.near = np.zeros(cluster.size, dtype=np.bool_)
        """Which ranks are on the node of rank 0."""
        self.far: MPI.Intracomm | None = None
        """Rank 0 and the ranks of other nodes, in order; None on others, and where there are none."""

    def take_notice(self) -> str:
        """Why there are no windows, once, on rank 0."""
        notice, self._notice = self._notice, ""
        return notice

    @property
    def open(self) -> bool:
        """Whether messages pass through windows, as far as anybody has asked for one."""
        return self._wanted and self._node is not None

    def refuse(self) -> None:
        """All goes by messages from here on (all ranks)."""
        self._wanted = False

    def place(self, name: str, rows: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """Shared memory ``[rows, *shape]`` for a message; of nobody's else on other nodes; None = send it.

        What it held is lost where the message is larger than all before it.
        """
        size = rows * math.prod(shape) * dtype.itemsize
        if not self._wanted or not size:
            return None
        if self._node is None:
            self._meet_neighbours()
            if not self._wanted:
                return None
        if size > self._sizes.get(name, 0) and not self._allocate(name, size):
            return None
        if not self._is_near:
            return torch.empty(0, *shape, dtype=dtype)
        return torch.from_numpy(self._held[name][1][:size]).view(dtype).view(rows, *shape)

    def synchronise(self, name: str) -> None:
        """What one rank wrote before it another reads after it: both call it, with word between them in between."""
        if name in self._held:
            self._held[name][0].Sync()

    @property
    def _is_near(self) -> bool:
        return bool(self.near[self._cluster.rank])

    def _meet_neighbours(self) -> None:
        """Find out who is on rank 0's node."""
        cluster = self._cluster
        cluster.meet()
        self._node = cluster.of_node()
        cluster.parts.append(self._node)
        leader, leaders = np.array([cluster.rank], dtype=np.int64), np.empty(cluster.size, dtype=np.int64)
        self._node.Bcast(leader, root=0)
        cluster.comm.Allgather(leader, leaders)
        self.near = leaders == 0
        self._wanted = int(self.near.sum()) > 1
        if self._wanted and not self.near.all():
            apart = cluster.serves or not self._is_near
            far = cluster.comm.Split(0 if apart else MPI.UNDEFINED, key=cluster.rank)
            if apart:
                self.far = cast(MPI.Intracomm, far)
                cluster.parts.append(self.far)
        cluster.at_close(self._close)

    def _allocate(self, name: str, size: int) -> bool:
        """A window of ``size`` bytes in place of the one of this ``name``, if there was any; whether all have it."""
        cluster = self._cluster
        cluster.meet()
        self._free(name)
        trouble = np.array([int(cluster.serves and room() < size + ALIGNED + SPARE), 0], dtype=np.int64)
        cluster.comm.Bcast(trouble[:1], root=0)
        if not trouble[0] and self._is_near:
            assert self._node is not None
            try:
                window = MPI.Win.Allocate_shared(size + ALIGNED if cluster.serves else 0, 1, comm=self._node)
            except MPI.Exception:
                trouble[0] = 2
            else:
                window.Lock_all(MPI.MODE_NOCHECK)
                memory = np.asarray(window.Shared_query(0)[0], dtype=np.uint8)
                begin = -memory.ctypes.data % ALIGNED  # pages are mapped whole: the same on every rank
                self._held[name] = window, memory[begin : begin + size]
                if cluster.serves:
                    memory[:] = 0  # from here on the pages are there, whoever fills up shared memory
        cluster.comm.Allreduce(trouble[:1], trouble[1:], op=MPI.MAX)
        if trouble[1]:
            self._wanted = False
            self._held.pop(name, None)  # not all have it, so that it cannot be freed together
            if cluster.serves:
                why = f"{SHARED} has {room()} bytes left" if trouble[1] == 1 else "the MPI library refuses a window"
                self._notice = (
                    f"Smashed data travel by messages, not through shared memory: {size} bytes are needed and {why}"
                )
            return False
        self._sizes[name] = size
        return True

    def _free(self, name: str) -> None:
        if name in self._held:
            window, _ = self._held.pop(name)
            window.Unlock_all()
            window.Free()

    def _close(self) -> None:
        for name in list(self._held):
            self._free(name)
        self.refuse()
