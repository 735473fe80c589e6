"""Which clients are computed together, by whom, and which of them travel together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Deal:
    """An epoch's pool cut into blocks in client order, and the blocks' hosts.

    The blocks depend on the pool and the configuration alone, so whoever computes a block computes the same bits. They
    are dealt in turns, so that hosts which are as fast have their first blocks, their second ones, … at one time.
    """

    pool: Ids
    blocks: tuple[Ids, ...]
    owners: tuple[int, ...]
    weights: Ids
    """Work of each client of each block, as a multiple of the least ``[blocks]``."""
    kinds: Ids
    """Of which kind the clients of each block are ``[blocks]``."""

    @cached_property
    def waves(self) -> tuple[range, ...]:
        """Numbers of blocks that one collective can move: in client order, of one kind, of ever higher ranks.

        Gathered in rank order the rows of a wave stand in client order, and waves follow each other so.
        """
        ends = np.flatnonzero((np.diff(self.owners) <= 0) | (np.diff(self.kinds) != 0)) + 1
        return tuple(range(*bounds) for bounds in pairwise([0, *ends.tolist(), len(self.blocks)]))

    @cached_property
    def work(self) -> Ids:
        """Clients of each block, each counted by its weight ``[blocks]``."""
        return np.array([len(block) for block in self.blocks], dtype=np.int64) * self.weights

    def work_of(self, rank: int, kind: int | None = None) -> int:
        """Clients of the pool that ``rank`` computes, each counted by its weight; those of a ``kind``, or all."""
        owned = zip(self.work.tolist(), self.owners, self.kinds.tolist(), strict=True)
        return sum(work for work, owner, its in owned if owner == rank and kind in (None, its))

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

    All but the last are full; or, where ``equal`` says how many, they are as equal as can be, larger ones first. Each
    goes to the host that has least to do yet, the first of several: a number of hosts that divides that of equal blocks
    gets equal shares of the pool, to one client.
    ``weights``: batches of the pool's clients ``[P]``, as multiples: work is counted in them.
    ``kinds [P]``: which clients can be computed together at all. A block holds clients with equal ones of both. None =
    all are alike.
    """
    own = np.ones_like(pool) if weights is None else weights
    kind = np.zeros_like(pool) if kinds is None else kinds
    runs = np.split(np.arange(len(pool)), np.flatnonzero((np.diff(own) != 0) | (np.diff(kind) != 0)) + 1)
    if equal is None:
        places = [run[start : start + block_size] for run in runs for start in range(0, len(run), block_size)]
    else:
        counts = [min(len(run), -(-len(run) * equal // len(pool))) for run in runs]
        places = [part for run, count in zip(runs, counts, strict=True) for part in np.array_split(run, count)]
    work = np.array([own[place[0]] for place in places], dtype=np.int64)
    kept = np.array([kind[place[0]] for place in places], dtype=np.int64)
    owners, busy = [], np.zeros(len(hosts), dtype=np.int64)
    for place, each in zip(places, work, strict=True):
        least = int(busy.argmin())
        owners.append(hosts[least])
        busy[least] += len(place) * each
    return Deal(pool, tuple(pool[place] for place in places), tuple(owners), work, kept)
