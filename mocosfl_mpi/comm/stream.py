"""One step's smashed data on their way up, and gradients on their way down, a wave of blocks at a time.

A wave (``Deal.waves``) leaves when its blocks are computed, wherever that is, so that the server can begin with it
while hosts compute the next; and gradients come back wave by wave. Ranks of rank 0's node write and read in windows,
and tell each other so by a collective of one byte; the rows of other nodes travel themselves. Which rows are computed
together, and in which order, depends on the pool alone: none of this moves a bit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI
from torch import Tensor

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange, raw
from mocosfl_mpi.comm.placement import Deal
from mocosfl_mpi.rows import Rows, one_after_another

Ids = npt.NDArray[np.int64]


class Stream(Protocol):
    """Used once in a step, in this order; ``send`` and ``receive`` by hosts, ``take`` and ``answer`` by rank 0."""

    def begin(self) -> None:
        """A step begins in which smashed data go up (all ranks)."""

    def send(self, *parts: Tensor) -> None:
        """Rows of this rank's next block ``[lanes, rows, *shape]``, one tensor for each name."""

    def sent(self) -> None:
        """There are no more blocks (all ranks)."""

    def __len__(self) -> int:
        """Rows of all clients."""

    def take(self, at: slice) -> tuple[Rows, ...]:
        """Rows ``[n, *shape]`` for each name, clients in order, on the device; waits until they are there."""

    def answer(self, gradient: Rows) -> None:
        """Gradient of the rows that follow those answered before. It takes the place of the first name's rows."""

    def end(self, *, down: bool) -> None:
        """The server is done with what it took; ``down``: gradients of all rows come (all ranks)."""

    def receive(self) -> Iterator[Tensor]:
        """Gradients ``[lanes, rows, *shape]`` of this rank's blocks, on the device, as they come."""


def has_own_cores(cluster: Cluster, threads: int) -> bool:
    """Whether rank 0 and the ranks of its node, of ``threads`` each, all find a core (collective, the same everywhere).

    If not, a server that began while hosts compute would only take from them what it gets itself.
    """
    everyone = cluster.gather_json([cluster.host_name, sorted(os.sched_getaffinity(0)), threads])
    return bool(cluster.broadcast_json(_enough(everyone) if everyone is not None else None))


def _enough(everyone: list[list[Any]]) -> bool:
    """Of (host, cores, threads) by rank: whether the node of rank 0 has a core for each of its threads."""
    near = [(cores, int(threads)) for host, cores, threads in everyone if host == everyone[0][0]]
    return sum(threads for _, threads in near) <= len(set().union(*(cores for cores, _ in near)))


def stream(
    exchange: Exchange,
    names: Sequence[str],
    rows: int,
    shapes: Sequence[Sequence[int]],
    dtype: torch.dtype,
    device: torch.device,
    *,
    eager: bool,
) -> Stream:
    """Traffic of rows in so many tensors as ``names``; of the poorest client they have ``rows`` rows.

    ``shapes``: of a row, by kind of clients. ``eager``: the server begins with the first wave, and not when all are
    there; the same bits.
    """
    if exchange.cluster.size == 1:
        return Beside(exchange, shapes)
    return Waves(exchange, names, rows, shapes, dtype, device, eager=eager)


class Beside:
    """With one rank clients and server lie beside each other: rows stay where they were computed."""

    def __init__(self, exchange: Exchange, shapes: Sequence[Sequence[int]]) -> None:
        self._exchange = exchange
        self._shapes = shapes
        self._blocks: list[tuple[Tensor, ...]] = []
        self._rows: tuple[Rows, ...] = ()
        self._batches: list[torch.Size] = []
        self._answers: list[Rows] = []

    def begin(self) -> None:
        """See ``Stream``."""
        self._batches, self._answers = [], []

    def send(self, *parts: Tensor) -> None:
        """See ``Stream``."""
        self._batches.append(parts[0].shape[:2])
        self._blocks.append(tuple(part.flatten(0, 1) for part in parts))

    def sent(self) -> None:
        """See ``Stream``."""
        self._rows = tuple(self._together(parts) for parts in zip(*self._blocks, strict=True))
        self._blocks = []

    def _together(self, parts: Sequence[Tensor]) -> Rows:
        kinds = self._exchange.kinds
        found = []
        for kind, shape in enumerate(self._shapes):
            own = [part for part, its in zip(parts, kinds, strict=True) if its == kind]
            found.append(torch.cat(own) if own else parts[0].new_empty(0, *shape))
        return Rows(tuple(found))

    def __len__(self) -> int:
        """See ``Stream``."""
        return len(self._rows[0])

    def take(self, at: slice) -> tuple[Rows, ...]:
        """See ``Stream``."""
        return tuple(rows[at] for rows in self._rows)

    def answer(self, gradient: Rows) -> None:
        """See ``Stream``."""
        self._answers.append(gradient)

    def end(self, *, down: bool) -> None:  # noqa: ARG002
        """See ``Stream``."""
        self._rows = ()

    def receive(self) -> Iterator[Tensor]:
        """See ``Stream``."""
        whole = one_after_another(self._answers)
        self._answers = []
        begins = [0] * len(self._shapes)
        for kind, batch in zip(self._exchange.kinds, self._batches, strict=True):
            stop = begins[kind] + math.prod(batch)
            yield whole.parts[kind][begins[kind] : stop].unflatten(0, batch)
            begins[kind] = stop


@dataclass(frozen=True)
class Wave:
    """What one collective moves, as one rank sees it."""

    kind: int
    owns: bool
    """Whether a block of this rank is among it."""
    counts: Ids
    """Rows of each rank."""
    begin: int
    """Its first row among those of its kind."""
    stop: int
    """Rows of all kinds before its end."""

    def of(self, rank: int) -> slice:
        """Rows of a rank among those of the kind."""
        before = self.begin + int(self.counts[:rank].sum())
        return slice(before, before + int(self.counts[rank]))

    @property
    def all(self) -> slice:
        """Rows of all ranks among those of the kind."""
        return slice(self.begin, self.begin + int(self.counts.sum()))


def waves_of(deal: Deal, rows: int, rank: int, size: int) -> list[Wave]:
    """The waves of ``deal`` as ``rank`` of ``size`` sees them, in order."""
    found, stop = [], 0
    begins = dict.fromkeys(deal.kinds.tolist(), 0)
    for blocks in deal.waves:
        kind = int(deal.kinds[blocks[0]])
        counts = np.zeros(size, dtype=np.int64)
        counts[[deal.owners[block] for block in blocks]] = rows * deal.work[blocks.start : blocks.stop]
        stop += int(counts.sum())
        found.append(Wave(kind, bool(counts[rank]), counts, begins[kind], stop))
        begins[kind] += int(counts.sum())
    return found


class Waves:
    """Between ranks."""

    def __init__(
        self,
        exchange: Exchange,
        names: Sequence[str],
        rows: int,
        shapes: Sequence[Sequence[int]],
        dtype: torch.dtype,
        device: torch.device,
        *,
        eager: bool,
    ) -> None:
        self._exchange = exchange
        self._cluster = exchange.cluster
        self._comm = exchange.cluster.comm.Dup()
        """Its own, so that others may meet while a step's waves are on their way."""
        exchange.cluster.parts.append(self._comm)
        self._windows = exchange.windows
        self._names = tuple(names)
        self._rows = rows
        self._shapes = [tuple(shape) for shape in shapes]
        self._dtype = dtype
        self._device = device
        self._eager = eager
        self._deal: Deal | None = None
        self._waves: list[Wave] = []
        self._kept: dict[tuple[str, int], Tensor] = {}
        """Where rows arrive by messages, on rank 0: as many as there have ever been."""
        self._places: tuple[Rows, ...] = ()
        """Where all rows of each name lie on the node of rank 0; elsewhere nothing."""
        self._near = np.zeros(self._cluster.size, dtype=np.bool_)
        """Whose rows pass through windows."""
        self._apart: MPI.Intracomm | None = None
        """Rank 0 and the others; None where there are none, and on ranks that are not among them."""
        self._lent = False
        """Whether somebody may still read what is in the places."""
        self._batches: list[torch.Size] = []
        self._begun = 0
        """Waves that this rank has sent up, or has nothing to do with."""
        self._arriving: list[list[MPI.Request]] = []
        self._answered = 0
        """Rows."""
        self._released = 0
        """Waves."""
        self._pending: list[MPI.Request] = []
        """What was begun and need not be done yet."""
        self._cluster.at_close(lambda: self._cluster.wait(self._pending))

    # ------------------------------------------------------------------------------------------- both sides

    def begin(self) -> None:
        """See ``Stream``."""
        cluster = self._cluster
        if self._deal is not self._exchange.deal:  # what was somebody's place is another's now
            self._deal, self._lent = self._exchange.deal, True
            self._waves = waves_of(self._exchange.deal, self._rows, cluster.rank, cluster.size)
        if self._lent:
            cluster.meet()
        cluster.wait(self._pending)
        self._lent, self._pending, self._batches = True, [], []
        self._begun = self._answered = self._released = 0
        self._find_places()
        if cluster.serves:
            self._arriving = [self._up(wave, None) for wave in self._waves]

    def _find_places(self) -> None:
        """Windows for all, or for none."""
        totals = np.zeros(len(self._shapes), dtype=np.int64)
        for wave in self._waves:
            totals[wave.kind] += wave.counts.sum()
        wanted = [(name, kind, int(total)) for name in self._names for kind, total in enumerate(totals)]
        found = [self._windows.place(f"{name} {k}", n, self._shapes[k], self._dtype) for name, k, n in wanted]
        if self._windows.open:
            self._near, self._apart = self._windows.near, self._windows.far
        else:
            self._near, self._apart = np.zeros_like(self._near), self._comm
            found = [self._own_place(*each) if self._cluster.serves else None for each in wanted]
        nothing = [torch.empty(0, *self._shapes[kind], dtype=self._dtype) for _, kind, _ in wanted]
        places = [blank if place is None else place for blank, place in zip(nothing, found, strict=True)]
        each = len(self._shapes)
        self._places = tuple(Rows(tuple(places[n * each : (n + 1) * each])) for n in range(len(self._names)))

    def _own_place(self, name: str, kind: int, total: int) -> Tensor:
        held = self._kept.get((name, kind))
        if held is None or len(held) < total:
            held = self._kept[name, kind] = torch.empty(total, *self._shapes[kind], dtype=self._dtype)
        return held[:total]

    def _synchronise(self) -> None:
        for name in self._names:
            for kind in range(len(self._shapes)):
                self._windows.synchronise(f"{name} {kind}")

    def _layout(self, wave: Wave) -> tuple[Ids, Ids]:
        """Rows of rank 0 and of each rank whose rows travel, and where they begin in the wave."""
        apart = ~self._near
        apart[0] = True
        return wave.counts[apart], (np.cumsum(wave.counts) - wave.counts)[apart]

    def _travelling(self, wave: Wave) -> int:
        """Rows of a wave that this rank sends or receives."""
        if self._cluster.serves:
            return int(self._layout(wave)[0].sum())
        return 0 if self._near[self._cluster.rank] else int(wave.counts[self._cluster.rank])

    def _words(self, wave: Wave) -> tuple[npt.NDArray[np.uint8], Ids]:
        """A byte for each rank that has written, or may read, in windows; and whose they are."""
        counts = np.where(self._near, np.minimum(wave.counts, 1), 0)
        return np.zeros(int(counts.sum()) if self._cluster.serves else 1, dtype=np.uint8), counts

    def _up(self, wave: Wave, parts: Sequence[Tensor] | None) -> list[MPI.Request]:
        """Begin to gather a wave: the rows of those who are apart, and word of those who have written theirs."""
        cluster, requests = self._cluster, []
        if self._near.any():
            word, counts = self._words(wave)
            given = [word, 0 if cluster.serves else int(counts[cluster.rank]), MPI.BYTE]
            taken = [word, counts, None, MPI.BYTE] if cluster.serves else None
            requests.append(self._comm.Igatherv(given, taken, root=0))
        if self._apart is not None:
            row = self._exchange.row(self._dtype, math.prod(self._shapes[wave.kind]))
            for number, places in enumerate(self._places):
                mine = places.parts[wave.kind][:0] if parts is None else parts[number]
                taken = [raw(places.parts[wave.kind][wave.all]), *self._layout(wave), row] if cluster.serves else None
                requests.append(self._apart.Igatherv([raw(mine), len(mine), row], taken, root=0))
            self._count(wave, len(self._names))
        return requests

    def _down(self, wave: Wave, mine: Tensor) -> list[MPI.Request]:
        """Begin to scatter a wave of gradients: those who are apart get theirs, others word that they can read."""
        cluster, requests = self._cluster, []
        if self._near.any():
            word, counts = self._words(wave)
            given = [word, counts, None, MPI.BYTE] if cluster.serves else None
            taken = [word, 0 if cluster.serves else int(counts[cluster.rank]), MPI.BYTE]
            requests.append(self._comm.Iscatterv(given, taken, root=0))
        if self._apart is not None:
            row = self._exchange.row(self._dtype, math.prod(self._shapes[wave.kind]))
            place = self._places[0].parts[wave.kind]
            given = [raw(place[wave.all]), *self._layout(wave), row] if cluster.serves else None
            requests.append(self._apart.Iscatterv(given, [raw(mine), len(mine), row], root=0))
            self._count(wave, 1)
        return requests

    def _count(self, wave: Wave, tensors: int) -> None:
        width = math.prod(self._shapes[wave.kind]) * self._dtype.itemsize
        self._exchange.count(tensors * self._travelling(wave) * width)

    def end(self, *, down: bool) -> None:
        """See ``Stream``."""
        if down and self._cluster.serves:
            self._release(len(self))
        self._lent = not down

    # ------------------------------------------------------------------------------------------------ hosts

    def send(self, *parts: Tensor) -> None:
        """See ``Stream``."""
        self._pass_by()
        wave = self._waves[self._begun]
        self._batches.append(parts[0].shape[:2])
        rank = self._cluster.rank
        rows = [part.flatten(0, 1) for part in parts]
        if self._near[rank]:
            for places, part in zip(self._places, rows, strict=True):
                places.parts[wave.kind][wave.of(rank)].copy_(part)
            self._synchronise()
        self._pending += self._up(wave, None if self._near[rank] else [part.cpu().contiguous() for part in rows])
        self._begun += 1
        MPI.Request.Testall(self._pending)  # the library gets on with what it has begun

    def sent(self) -> None:
        """See ``Stream``."""
        self._pass_by()
        if not self._eager and not self._cluster.serves:
            self._cluster.wait(self._pending)  # what travels gets no further while this rank computes

    def _pass_by(self) -> None:
        """Take part in waves without a block of this rank."""
        if self._cluster.serves:
            return
        while self._begun < len(self._waves) and not self._waves[self._begun].owns:
            self._pending += self._up(self._waves[self._begun], None)
            self._begun += 1

    def receive(self) -> Iterator[Tensor]:
        """See ``Stream``."""
        if self._cluster.serves:
            return
        rank, coming = self._cluster.rank, []
        for wave in self._waves:
            mine = torch.empty(self._travelling(wave), *self._shapes[wave.kind], dtype=self._dtype)
            requests = self._down(wave, mine)
            if wave.owns:
                coming.append((wave, mine, requests))
            else:
                self._pending += requests
        for (wave, mine, requests), batch in zip(coming, self._batches, strict=True):
            self._cluster.wait(requests)
            self._synchronise()
            found = self._places[0].parts[wave.kind][wave.of(rank)] if self._near[rank] else mine
            yield found.to(self._device).unflatten(0, batch)

    # ----------------------------------------------------------------------------------------------- server

    def __len__(self) -> int:
        """See ``Stream``."""
        return self._waves[-1].stop

    def take(self, at: slice) -> tuple[Rows, ...]:
        """See ``Stream``."""
        stop = at.indices(len(self))[1] if self._eager else len(self)
        MPI.Request.Testall(self._pending)  # the library gets on with the gradients that are on their way
        while self._begun < len(self._waves) and (self._waves[self._begun - 1].stop if self._begun else 0) < stop:
            self._cluster.wait(self._arriving[self._begun])
            self._begun += 1
        self._synchronise()
        return tuple(places[at].map(lambda part: part.to(self._device)) for places in self._places)

    def answer(self, gradient: Rows) -> None:
        """See ``Stream``."""
        at = slice(self._answered, self._answered + len(gradient))
        for place, part in zip(self._places[0][at].parts, gradient.parts, strict=True):
            place.copy_(part.view(place.shape))
        self._answered = at.stop
        if self._eager:
            self._release(self._answered)

    def _release(self, stop: int) -> None:
        """Begin to scatter all waves that end before row ``stop``."""
        self._synchronise()
        while self._released < len(self._waves) and self._waves[self._released].stop <= stop:
            wave = self._waves[self._released]
            self._pending += self._down(wave, self._places[0].parts[wave.kind][:0])
            self._released += 1
