"""Dealing whole jobs to ranks: whoever is free gets the next, and rank 0 hears the results as they come."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from mpi4py import MPI

from mocosfl_mpi.comm.cluster import Cluster

_DONE, _NEXT = 1, 2
_NAP = 0.005  # seconds: a job takes longer
_NOTHING = -1


def hand_out(
    cluster: Cluster, jobs: int, work: Callable[[int], Any], stop: Callable[[], bool]
) -> Iterator[tuple[int, Any]]:
    """Jobs ``0 … jobs - 1`` and the JSON-ready results of ``work``, in the order of their ends; on rank 0 only.

    Rank 0 deals and the other ranks work; alone, it works itself. Every rank must exhaust this. After ``stop()``,
    asked on rank 0, no further job is dealt, and those at work end.
    """
    if cluster.size == 1:
        for job in range(jobs):
            if stop():
                return
            yield job, work(job)
    elif cluster.serves:
        yield from _serve(cluster, jobs, stop)
    else:
        _obey(cluster, work)


def _serve(cluster: Cluster, jobs: int, stop: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
    at_work: dict[int, int] = {}
    waiting = iter(range(jobs))
    for rank in cluster.hosts:
        _hand(cluster, rank, waiting, at_work, stop)
    while at_work:
        rank, result = _hear(cluster)
        job = at_work.pop(rank)
        _hand(cluster, rank, waiting, at_work, stop)
        yield job, result


def _hand(
    cluster: Cluster, rank: int, waiting: Iterator[int], at_work: dict[int, int], stop: Callable[[], bool]
) -> None:
    job = _NOTHING if stop() else next(waiting, _NOTHING)
    cluster.comm.Send(np.array([job], dtype=np.int64), dest=rank, tag=_NEXT)
    if job != _NOTHING:
        at_work[rank] = job


def _hear(cluster: Cluster) -> tuple[int, Any]:
    status = MPI.Status()
    while not cluster.comm.Iprobe(MPI.ANY_SOURCE, _DONE, status):
        time.sleep(_NAP)  # a blocking call would spin on a core that a job needs
    data = bytearray(status.Get_count(MPI.BYTE))
    cluster.comm.Recv([data, MPI.BYTE], source=status.Get_source(), tag=_DONE)
    return status.Get_source(), json.loads(data.decode())


def _obey(cluster: Cluster, work: Callable[[int], Any]) -> None:
    job = np.empty(1, dtype=np.int64)
    while True:
        while not cluster.comm.Iprobe(0, _NEXT):
            time.sleep(_NAP)
        cluster.comm.Recv(job, source=0, tag=_NEXT)
        if job[0] == _NOTHING:
            return
        cluster.comm.Send([bytearray(json.dumps(work(int(job[0]))).encode()), MPI.BYTE], dest=0, tag=_DONE)
