"""One step's traffic between clients and main server."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.clients.reliability import Delivery
from mocosfl_mpi.codecs import Codec, of_samples
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.stream import Stream
from mocosfl_mpi.config import Config
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.objectives.contrast import symmetry
from mocosfl_mpi.objectives.feature_memory import overwrite
from mocosfl_mpi.objectives.local import LocalObjective, Outputs
from mocosfl_mpi.rows import Rows
from mocosfl_mpi.saving import Saving, Trip
from mocosfl_mpi.server.main_server import MainServer
from mocosfl_mpi.server.protocol import AtHand
from mocosfl_mpi.server.report import StepReport

Smashed = Iterator[tuple[Tensor, Tensor | None]]
"""Query and key ``[lanes, rows, C, h, w]`` of this rank's blocks, computed when asked for; labels in the key's place
where clients learn from them."""
UNHEARD = StepReport(math.nan, math.nan, torch.empty(0, 0), None, 0)
"""Of a step in which the server heard nobody: it did nothing."""


class Route(Protocol):
    """From what clients compute to the gradient they go on from."""

    report: StepReport | None
    """Of the latest step, on rank 0."""

    def gradient_at_cut(
        self,
        smashed: Smashed,
        pool: npt.NDArray[np.int64],
        delivery: Delivery,
        *,
        keep_memory: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> Iterable[Tensor] | None:
        """Smashed data of this rank's blocks to their gradients, in the same shapes; None where none comes down.

        ``delivery``: what travels in this step, and arrives.
        """


class AsMaps:
    """What a stream brings, as the server wants it: maps ``[n, C, h, w]``; gradients as they arrive at clients."""

    def __init__(self, stream: Stream, meter: Meter, gradient: Codec) -> None:
        self._stream = stream
        self._meter = meter
        self._gradient = gradient

    def __len__(self) -> int:
        """See ``Traffic``."""
        return len(self._stream)

    def take(self, at: slice) -> tuple[Rows, Rows]:
        """See ``Traffic``."""
        with self._meter.phase("exchange"):
            query, key = self._stream.take(at)
        return query.map(channels_first), key.map(channels_first)

    def answer(self, gradient: Rows) -> None:
        """See ``Traffic``."""
        arriving = gradient.map(lambda part: of_samples(self._gradient, part).movedim(1, -1))
        with self._meter.phase("exchange"):
            self._stream.answer(arriving)


def channels_first(part: Tensor) -> Tensor:
    """Rows ``[n, h, w, C]``, as they travel and as fast convolutions have them in memory, seen as ``[n, C, h, w]``."""
    return part.movedim(-1, 1)


class AtServer:
    """The loss lives on the main server: smashed query and key data up, the gradient at the cut down.

    One round trip, or what of it the step's ``Trip`` says; ``saving`` has what the server replays. ``factors
    [clients]``: how many times the rows of the poorest client each has. ``smashed`` and ``gradient`` are how these
    travel; ``own_rows``: clients multiply their gradients by the rows in the mean, over their own.
    """

    def __init__(
        self,
        server: MainServer | None,
        stream: Stream,
        meter: Meter,
        rows: int,
        factors: npt.NDArray[np.int64],
        device: torch.device,
        saving: Saving,
        *,
        smashed: Codec,
        gradient: Codec,
        own_rows: bool = False,
    ) -> None:
        self._server = server
        self._stream = stream
        self._meter = meter
        self._rows = rows
        self._factors = factors
        self._device = device
        self._saving = saving
        self._smashed = smashed
        self._gradient = gradient
        self._own_rows = own_rows
        self.report: StepReport | None = None

    def gradient_at_cut(
        self,
        smashed: Smashed,
        pool: npt.NDArray[np.int64],
        delivery: Delivery,
        *,
        keep_memory: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> Iterable[Tensor] | None:
        """Smashed data of this rank's blocks to their gradients, ``[lanes, rows, C, h, w]`` per block.

        Zeros for clients that the server has not heard; None when no gradient comes down. The server's report of the
        step is in ``report`` (None on other ranks). ``meanwhile`` is what clients can do until the gradient comes;
        nothing in a replay.
        """
        trip, heard = delivery.trip, delivery.heard
        if not trip.up:
            self._replay(trip, keep_memory=keep_memory)
            return None
        self._upload(smashed)
        if meanwhile is not None:
            meanwhile()
        if self._server is not None:
            with self._meter.phase("server"):
                self.report = self._answer(self._server, pool, heard, keep_memory=keep_memory, answer=trip.down)
                query, key = self._stream.take(slice(None)) if self._saving.keeps else (None, None)
                if query is not None and key is not None:
                    self._saving.received(query.only, key.only, pool)  # with two cuts it never replays
        with self._meter.phase("exchange"):
            self._stream.end(down=trip.down)
        return self._gradients(pool, heard) if trip.down else None

    def _replay(self, trip: Trip, *, keep_memory: bool) -> None:
        """The server steps on smashed data that it has kept."""
        if self._server is None:
            return
        *stored, pool = self._saving.replay.draw(trip)
        with self._meter.phase("server"):
            query, key = (Rows((channels_first(part.to(self._device)),)) for part in stored)
            self.report = self._server.step(AtHand(query, key), pool, keep_memory=keep_memory, answer=False)

    def _upload(self, smashed: Smashed) -> None:
        with self._meter.phase("exchange"):
            self._stream.begin()
        for query, key in smashed:
            assert key is not None
            with self._meter.phase("client_forward"):
                parts = [of_samples(self._smashed, part).movedim(2, -1) for part in (query, key)]
            with self._meter.phase("exchange"):
                self._stream.send(*parts)
        with self._meter.phase("exchange"):
            self._stream.sent()

    def _answer(
        self,
        server: MainServer,
        pool: npt.NDArray[np.int64],
        heard: npt.NDArray[np.bool_],
        *,
        keep_memory: bool,
        answer: bool,
    ) -> StepReport:
        """The server's step with those it has heard; nothing where it hears nobody."""
        traffic = AsMaps(self._stream, self._meter, self._gradient)
        if heard.all():
            return server.step(traffic, pool, keep_memory=keep_memory, answer=answer)
        everyone, keys = traffic.take(slice(None))
        report, gradient = UNHEARD, everyone.map(torch.zeros_like)
        if heard.any():
            arrived = torch.from_numpy(np.repeat(heard, self._rows * self._factors[pool]))
            some = AtHand(everyone[arrived], keys[arrived])
            report = server.step(some, pool[heard], keep_memory=keep_memory, answer=answer)
            gradient = some.gradient.among(everyone, arrived) if answer else gradient
        if answer:
            traffic.answer(gradient)
        return report

    def _gradients(self, pool: npt.NDArray[np.int64], heard: npt.NDArray[np.bool_]) -> Iterator[Tensor]:
        together = self._rows * int(self._factors[pool[heard]].sum())
        coming = self._stream.receive()
        while True:
            with self._meter.phase("exchange"):
                part = next(coming, None)
            if part is None:
                return
            part = part.movedim(-1, 2)
            yield part * (together / part.shape[1]) if self._own_rows else part


class AtClient:
    """The loss lives on the client, which holds the whole network: nothing travels in a step. FL is this route.

    A client's past keys, where the objective has them, are its state ``memory``.
    """

    def __init__(
        self,
        config: Config,
        objective: LocalObjective,
        clients: Population,
        exchange: Exchange,
        meter: Meter,
        key_dim: int,
    ) -> None:
        self._objective = objective
        self._clients = clients
        self._exchange = exchange
        self._meter = meter
        self._temperature = config.contrast.temperature
        self._rows = config.rows_per_client
        self._terms = symmetry(config).terms
        self._key_dim = key_dim
        self.report: StepReport | None = None

    def gradient_at_cut(
        self,
        smashed: Smashed,
        pool: npt.NDArray[np.int64],  # noqa: ARG002
        delivery: Delivery,  # noqa: ARG002
        *,
        keep_memory: bool = False,
        meanwhile: Callable[[], None] | None = None,  # noqa: ARG002
    ) -> list[Tensor] | None:
        """What the networks of this rank's blocks gave to its gradients, ``[lanes, rows, d]`` per block.

        Ranks tell rank 0 the losses for the record, and the last queries of an epoch (``keep_memory``); simulated
        clients send nothing. ``meanwhile`` is not called: nobody waits.
        """
        found = list(smashed)
        with self._meter.phase("client_backward"):
            done = [self._learn(block, *parts) for block, parts in zip(self._clients.blocks, found, strict=True)]
        with self._meter.phase("exchange"):
            table = self._exchange.up([scores for _, scores in done], [2], torch.float64)
            queries = self._queries([query for query, _ in found]) if keep_memory else None
        if table is not None:
            loss, hits = table.mean(dim=0).tolist()
            if queries is None:
                queries = torch.empty(0, self._key_dim)
            self.report = StepReport(loss, hits, queries, None, 0)
        return [gradient for gradient, _ in done]

    def _learn(self, block: Block, query: Tensor, beside: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gradient at the network's outputs, and (loss, hits) of each lane ``[lanes, 2]``.

        ``beside``: keys, or labels.
        """
        query = query.detach().requires_grad_()
        key, labels = (None, beside) if self._objective.labels else (beside, None)
        memory = None
        if self._objective.memory:
            memory = block.state["memory"].view(len(query), -1, self._key_dim)
        with torch.enable_grad():
            loss, hits = self._objective.loss(Outputs(query, key, memory, self._temperature, labels))
            loss = loss * self._terms
            loss.sum().backward()
        assert query.grad is not None
        if memory is not None:
            assert key is not None
            fresh = F.normalize(key, dim=-1)
            if self._terms == 2:  # published: the first views' keys, then the second's
                fresh = fresh.roll(query.shape[1] // 2, dims=1)
            overwrite(memory, fresh, self._clients.steps_of(block) * query.shape[1])
        return query.grad, torch.stack([loss.detach(), hits], dim=1).to(torch.float64)

    def _queries(self, outputs: list[Tensor]) -> Tensor | None:
        """Unit queries ``[rows, d]`` of the whole pool, on rank 0."""
        units = [F.normalize(part[..., : self._key_dim], dim=-1) for part in outputs]
        dtype = self._clients.dtype
        return self._exchange.rows_up(units, self._rows, [self._key_dim], dtype)
