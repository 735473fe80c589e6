"""Messages of one rank after the other, through windows and not: ``python -m tests.mpi.exchanges CASE…`` is one rank.

CASE: `node` (all ranks on one), `nodes` (odd ranks elsewhere), `full` (no room in shared memory from the third window
on), `small` (none at all), `killed` and `raised` (a rank dies while the others wait for it in a window).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import cast

import numpy as np
import torch
from mpi4py import MPI

from mocosfl_mpi.comm import windows
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.placement import deal

SHAPE = (3, 5)
ROOM = windows.room


class TwoNodes(Cluster):
    """As if odd ranks were on another machine."""

    def of_node(self) -> MPI.Intracomm:
        return cast(MPI.Intracomm, self.comm.Split(self.rank % 2, key=self.rank))


def prepare(case: str) -> Cluster:
    """A cluster on which ``case`` holds."""
    windows.room = ROOM
    if case == "small":
        windows.room = lambda: 1000
    if case == "full":
        asked: list[int] = []

        def less() -> int:
            asked.append(1)
            return ROOM() if len(asked) < 3 else 0

        windows.room = less
    cluster = TwoNodes() if case == "nodes" else Cluster()
    cluster.abort_on_error()
    return cluster


def main(case: str) -> None:
    cluster = prepare(case)
    exchange = Exchange(cluster)
    apart = [rank for rank in cluster.hosts if case == "nodes" and rank % 2]
    by_messages, notices = 0, []
    for turn, count in enumerate((7, 13, 4, 40, 40)):
        pool, dtype = np.arange(count), (torch.float32, torch.bfloat16)[turn % 2]
        placed = deal(pool, 3, cluster.hosts, np.where(pool < 2, 3, 1), (pool > 2).astype(np.int64))
        exchange.begin(placed)
        mine = [block for block, owner in zip(placed.blocks, placed.owners, strict=True) if owner == cluster.rank]
        kinds = exchange.kinds
        for kind in (None, 0, 1):
            own = [block for block, its in zip(mine, kinds, strict=True) if kind in (None, its)]
            rows = 2  # of the poorest client
            each = [rows * (3 if block[0] < 2 else 1) for block in own]
            parts = [numbers(block, n, turn).to(dtype) for block, n in zip(own, each, strict=True)]
            if case == "killed" and (turn, kind, cluster.rank) == (2, 0, cluster.size - 1):
                os.kill(os.getpid(), signal.SIGKILL)
            if case == "raised" and (turn, kind, cluster.rank) == (2, 0, cluster.size - 1):
                raise ValueError("injected")
            found = exchange.rows_up(parts, rows, SHAPE, dtype, kind, window=f"up {kind}")
            everyone = [b for b, its in zip(placed.blocks, placed.kinds, strict=True) if kind in (None, its)]
            whole = [numbers(b, rows * (3 if b[0] < 2 else 1), turn).to(dtype).flatten(0, 1) for b in everyone]
            expected = torch.cat([torch.empty(0, *SHAPE, dtype=dtype), *whole])
            if cluster.serves:
                assert torch.equal(found, expected), (case, turn, kind)
            for sign in (-1, 1):  # hosts would be ahead of a server that takes its time
                early = exchange.rows_up([sign * part for part in parts], rows, SHAPE, dtype, kind, window="twice")
                time.sleep(0.003 * cluster.serves)
                if cluster.serves:
                    assert torch.equal(early, sign * expected), (case, turn, kind, sign)
            down = None if found is None else found * 2
            batches = [(len(block), n) for block, n in zip(own, each, strict=True)]
            back = exchange.rows_down(down, batches, rows, SHAPE, dtype, kind, window=f"down {kind}")
            assert len(back) == len(parts)
            assert all(torch.equal(a, 2 * b) for a, b in zip(back, parts, strict=True)), (case, turn, kind)
            bytes_of = {r: 4 * rows * placed.work_of(r, kind) * 15 * dtype.itemsize for r in range(cluster.size)}
            if cluster.serves:
                by_messages += sum(bytes_of[rank] for rank in apart)
            elif cluster.rank in apart:
                by_messages += bytes_of[cluster.rank]
        if notice := exchange.take_notice():
            notices.append(notice)
    moved = exchange.take_bytes()
    if cluster.size == 1:
        assert moved == 0  # there is nobody to send to
    elif case in ("node", "nodes"):
        assert moved == by_messages, (moved, by_messages)
    else:
        assert moved > 0 or not cluster.serves
    assert len(notices) == (case in ("small", "full") and cluster.serves and cluster.size > 1), notices
    cluster.close()
    if cluster.serves:
        print("done", case, *notices)


def numbers(clients: np.ndarray, rows: int, turn: int) -> torch.Tensor:
    """Rows ``[lanes, rows, 3, 5]`` that tell client, row and turn."""
    values = 100 * torch.from_numpy(clients)[:, None] + torch.arange(rows) + 7 * turn
    return values[..., None, None].expand(-1, -1, *SHAPE).float()


if __name__ == "__main__":
    for case in sys.argv[1:]:
        main(case)
