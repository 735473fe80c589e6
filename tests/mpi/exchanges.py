"""Smashed data of one step after the other, through windows and not: ``python -m tests.mpi.exchanges CASE…`` is a rank.

CASE: `node` (all ranks on one), `nodes` (odd ranks elsewhere), `full` (no room in shared memory from the third window
on), `small` (none at all), `killed` and `raised` (a rank dies while the others wait for it), `ahead` and `ahead-nodes`
(hosts compute their second blocks only when the server has answered all of the first).
"""

from __future__ import annotations

import math
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
from mocosfl_mpi.comm.placement import Deal, deal
from mocosfl_mpi.comm.stream import Stream, stream
from mocosfl_mpi.rows import Rows

SHAPES = (3, 5), (2, 2)
ROWS = 2
CPU = torch.device("cpu")
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
    streams = {
        dtype: stream(exchange, (f"query {dtype}", f"key {dtype}"), ROWS, SHAPES, dtype, CPU, eager=eager)
        for dtype, eager in ((torch.float32, False), (torch.bfloat16, True))
    }
    for turn, count in enumerate((7, 13, 4, 40, 40)):
        pool, dtype = np.arange(count), (torch.float32, torch.bfloat16)[turn % 2]
        placed = deal(pool, 3, cluster.hosts, np.where(pool < 2, 3, 1), (pool > 2).astype(np.int64))
        exchange.begin(placed)
        for number, down in enumerate((True, False, False, True, True)):
            if (turn, number, cluster.rank) == (2, 1, cluster.size - 1):
                if case == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if case == "raised":
                    raise ValueError("injected")
            step(streams[dtype], placed, cluster, dtype, turn + number, down=down)
        sizes = {rank: sum(placed.work_of(rank, kind) * math.prod(SHAPES[kind]) for kind in (0, 1)) for rank in apart}
        tensors = 5 * 2 + 3  # queries and keys of five steps, gradients of three
        of_all = {rank: tensors * ROWS * size * dtype.itemsize for rank, size in sizes.items()}
        by_messages += sum(of_all.values()) if cluster.serves else of_all.get(cluster.rank, 0)
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


def step(traffic: Stream, placed: Deal, cluster: Cluster, dtype: torch.dtype, turn: int, *, down: bool) -> None:
    """Everything up in blocks, and twice that down, in parts of seven rows: all of it as it was."""
    kinds = placed.kinds.tolist()
    blocks = [
        numbers(*each, turn).to(dtype) for each in zip(placed.blocks, placed.weights.tolist(), kinds, strict=True)
    ]
    mine = [block for block, owner in zip(blocks, placed.owners, strict=True) if owner == cluster.rank]
    traffic.begin()
    for block in mine:
        traffic.send(block, -block)
    traffic.sent()
    if cluster.serves:
        whole = [[torch.empty(0, *shape, dtype=dtype)] for shape in SHAPES]
        for block, kind in zip(blocks, kinds, strict=True):
            whole[kind].append(block.flatten(0, 1))
        expected = Rows(tuple(torch.cat(parts) for parts in whole))
        assert len(traffic) == len(expected)
        for start in range(0, len(expected), 7):
            at = slice(start, min(start + 7, len(expected)))
            time.sleep(0.001)  # hosts would be ahead of a server that takes its time
            for sign, rows in zip((1, -1), traffic.take(at), strict=True):
                for found, right in zip(rows.parts, expected[at].parts, strict=True):
                    assert torch.equal(found, sign * right), (turn, start, sign)
            if down:
                traffic.answer(expected[at].map(lambda part: 2 * part))
    traffic.end(down=down)
    if down:
        back = list(traffic.receive())
        assert len(back) == len(mine)
        assert all(torch.equal(a, 2 * b) for a, b in zip(back, mine, strict=True)), turn


def ahead(case: str) -> None:
    """The server answers the first wave while hosts wait for just that before they compute the second; and so on."""
    cluster = prepare("nodes" if case == "ahead-nodes" else "node")
    exchange = Exchange(cluster)
    exchange.begin(deal(np.arange(12), 1, cluster.hosts))
    traffic = stream(exchange, ("query", "key"), ROWS, SHAPES, torch.float32, CPU, eager=True)
    traffic.begin()
    node = cluster.comm.Split_type(MPI.COMM_TYPE_SHARED)
    window = MPI.Win.Allocate_shared(8 if cluster.serves else 0, 1, comm=node)
    window.Lock_all()
    answered = np.frombuffer(window.Shared_query(0)[0], dtype=np.int64)
    waves = exchange.deal.waves
    if cluster.serves:
        answered[0] = 0
    node.Barrier()
    for number, wave in enumerate(waves):
        if cluster.serves:
            at = slice(ROWS * wave.start, ROWS * wave.stop)
            query, key = traffic.take(at)
            assert torch.equal(query.parts[0], -key.parts[0])
            traffic.answer(query)
            answered[0] = number + 1
            window.Sync()
            continue
        while answered[0] < number:
            time.sleep(0.0005)
            window.Sync()
        for block in wave:
            if exchange.deal.owners[block] == cluster.rank:
                rows = numbers(exchange.deal.blocks[block], 1, 0, 0)
                traffic.send(rows, -rows)
    traffic.sent()
    traffic.end(down=True)
    assert len(list(traffic.receive())) == (0 if cluster.serves else len(exchange.kinds))
    window.Unlock_all()
    window.Free()
    cluster.close()
    if cluster.serves:
        print("done", case)


def numbers(clients: np.ndarray, weight: int, kind: int, turn: int) -> torch.Tensor:
    """Rows ``[lanes, rows, *shape]`` that tell client, row and turn."""
    values = 100 * torch.from_numpy(clients)[:, None] + torch.arange(ROWS * weight) + 7 * turn
    return values[..., None, None].expand(-1, -1, *SHAPES[kind]).float()


if __name__ == "__main__":
    for case in sys.argv[1:]:
        (ahead if case.startswith("ahead") else main)(case)
