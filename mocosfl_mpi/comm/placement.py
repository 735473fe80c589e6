"""Which clients are computed together, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Deal:
    """An epoch's pool cut into blocks in client order, and the blocks' hosts.

    The blocks depend on the pool and the block size alone, so whoever computes a block computes the same bits;
    contiguous runs of blocks go to each host, so that rows gathered in rank order stand in client order.
    """

    pool: Ids
    blocks: tuple[Ids, ...]
    owners: tuple[int, ...]

    def clients_of(self, rank: int) -> int:
        """How many clients of the pool ``rank`` computes (possibly none)."""
        return sum(len(block) for block, owner in zip(self.blocks, self.owners, strict=True) if owner == rank)

    def owner_of_clients(self) -> Ids:
        """The host of each client of the pool, in its order."""
        return np.repeat(np.asarray(self.owners, dtype=np.int64), [len(block) for block in self.blocks])


def deal(pool: Ids, block_size: int, hosts: Sequence[int]) -> Deal:
    """Cut the sorted ``pool`` into blocks of ``block_size`` (the last may be smaller) and deal them to ``hosts``."""
    blocks = tuple(pool[start : start + block_size] for start in range(0, len(pool), block_size))
    owners = tuple(hosts[index * len(hosts) // len(blocks)] for index in range(len(blocks)))
    return Deal(pool, blocks, owners)
