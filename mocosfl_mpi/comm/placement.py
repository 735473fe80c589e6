"""Which clients are computed together, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Deal:
    """An epoch's pool cut into blocks in client order, and the blocks' hosts.

    The blocks depend on the pool and the configuration alone, so whoever computes a block computes the same bits;
    contiguous runs of blocks go to each host, so that rows gathered in rank order stand in client order.
    """

    pool: Ids
    blocks: tuple[Ids, ...]
    owners: tuple[int, ...]
    weights: Ids
    """Work of each client of each block, as a multiple of the least ``[blocks]``."""
    kinds: Ids
    """Of which kind the clients of each block are ``[blocks]``."""

    def work_of(self, rank: int, kind: int | None = None) -> int:
        """Clients of the pool that ``rank`` computes, each counted by its weight; those of a ``kind``, or all."""
        owned = zip(self.blocks, self.weights.tolist(), self.owners, self.kinds.tolist(), strict=True)
        return sum(len(block) * weight for block, weight, owner, its in owned if owner == rank and kind in (None, its))

    def kinds_of(self, rank: int) -> list[int]:
        """The kind of each block that ``rank`` computes."""
        return [kind for kind, owner in zip(self.kinds.tolist(), self.owners, strict=True) if owner == rank]

    def clients_of(self, rank: int) -> int:
        """How many clients of the pool ``rank`` computes (possibly none)."""
        return sum(len(block) for block, owner in zip(self.blocks, self.owners, strict=True) if owner == rank)

    def owner_of_clients(self) -> Ids:
        """The host of each client of the pool, in its order."""
        return np.repeat(np.asarray(self.owners, dtype=np.int64), [len(block) for block in self.blocks])


def deal(
    pool: Ids,
    block_size: int,
    hosts: Sequence[int],
    weights: Ids | None = None,
    kinds: Ids | None = None,
    *,
    equal: int | None = None,
) -> Deal:
    """Cut the sorted ``pool`` into blocks of at most ``block_size`` clients and deal them to ``hosts``.

    All but the last are full; or, where ``equal`` says how many, they are as equal as can be, larger and smaller ones
    spread evenly: a number of hosts that divides theirs gets equal shares of the pool, to one client.
    ``weights``: batches of the pool's clients ``[P]``, as multiples; hosts get shares of the work, not of the blocks.
    ``kinds [P]``: which clients can be computed together at all. A block holds clients with equal ones of both. None =
    all are alike.
    """
    own = np.ones_like(pool) if weights is None else weights
    kind = np.zeros_like(pool) if kinds is None else kinds
    runs = np.split(np.arange(len(pool)), np.flatnonzero((np.diff(own) != 0) | (np.diff(kind) != 0)) + 1)
    if equal is None:
        places = [run[start : start + block_size] for run in runs for start in range(0, len(run), block_size)]
    else:
        places = [part for run in runs for part in _spread(run, -(-len(run) * equal // len(pool)))]
    work = np.array([own[place[0]] for place in places], dtype=np.int64)
    before = np.cumsum(work) - work
    owners = tuple(hosts[int(done) * len(hosts) // int(work.sum())] for done in before)
    kept = np.array([kind[place[0]] for place in places], dtype=np.int64)
    return Deal(pool, tuple(pool[place] for place in places), owners, work, kept)


def _spread(run: Ids, parts: int) -> list[Ids]:
    """``run`` in so many ``parts``, none of them empty, whose sizes differ by one at most."""
    parts = min(parts, len(run))
    bounds = np.arange(parts + 1) * len(run) // parts
    return [run[start:end] for start, end in pairwise(bounds)]
