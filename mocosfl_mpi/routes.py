"""One step's traffic between clients and main server."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
from mocosfl_mpi.config import Config
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.objectives.contrast import symmetry
from mocosfl_mpi.objectives.feature_memory import overwrite
from mocosfl_mpi.objectives.local import LocalObjective, Outputs
from mocosfl_mpi.saving import Saving
from mocosfl_mpi.server.main_server import MainServer
from mocosfl_mpi.server.report import StepReport
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.rows import Rows

Smashed = tuple[list[Tensor], list[Tensor]]
"""Query and key per block of this rank; labels in the key's place where clients learn from them."""
UNHEARD = StepReport(math.nan, math.nan, torch.empty(0, 0), None, 0)
"""Of a step in which the server heard nobody: it did nothing."""


class Route(Protocol):
    """From what clients have computed to the gradient they go on from."""

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
    ) -> list[Tensor] | None:
        """Smashed data of this rank's blocks to their gradients, in the same shapes; None where none comes down.

        ``delivery``: what travels in this step, and arrives.
        """


class AtServer:
    """The loss lives on the main server: smashed query and key data up, the gradient at the cut down.

    One round trip, or what of it the step's ``Trip`` says; ``saving`` has what the server replays. Each client has
    ``rows`` rows, times its one of ``factors [clients]``; ``smashed_shapes``: of a row, by kind of clients. ``smashed``
    and ``gradient`` are how these travel; ``own_rows``: clients multiply their gradients by the rows in the mean, over
    their own.
    """

    def __init__(
        self,
        server: MainServer | None,
        exchange: Exchange,
        meter: Meter,
        rows: int,
        factors: npt.NDArray[np.int64],
        smashed_shapes: Sequence[tuple[int, ...]],
        engine: Engine,
        saving: Saving,
        *,
        smashed: Codec,
        gradient: Codec,
        own_rows: bool = False,
    ) -> None:
        self._server = server
        self._exchange = exchange
        self._meter = meter
        self._rows = rows
        self._factors = factors
        # As fast convolutions have it in memory, and on the wire.
        self._shapes = [(height, width, channels) for channels, height, width in smashed_shapes]
        self._dtype = engine.activations
        self._device = engine.device
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
    ) -> list[Tensor] | None:
        """Smashed data of this rank's blocks to their gradients, ``[lanes, rows, C, h, w]`` per block.

        Zeros for clients that the server has not heard; None when no gradient comes down. The server's report of the
        step is in ``report`` (None on other ranks). ``meanwhile`` is what clients can do until the gradient comes;
        nothing in a replay.
        """
        batches = [(part.shape[0], part.shape[1]) for part in smashed[0]]
        trip, heard = delivery.trip, delivery.heard
        query = key = gradient = None
        if trip.up:
            query, key = self._upload(smashed)
            if meanwhile is not None:
                meanwhile()
        if self._server is not None:
            if query is not None and key is not None:
                self._saving.received(query.parts[0], key.parts[0], pool)  # with two cuts it never replays
            else:
                *stored, pool = self._saving.replay.draw(trip)
                query, key = (Rows((part.to(self._device),)) for part in stored)
                heard = np.ones(len(pool), dtype=bool)
            with self._meter.phase("server"):
                gradient, self.report = self._answer(
                    self._server, query, key, pool, heard, keep_memory=keep_memory, answer=trip.down
                )
        if not trip.down:
            return None
        with self._meter.phase("exchange"):
            parts = [part.movedim(-1, 2) for part in self._download(gradient, batches)]
            if not self._own_rows:
                return parts
            together = self._rows * int(self._factors[pool[heard]].sum())
            return [part * (together / part.shape[1]) for part in parts]

    def _answer(
        self,
        server: MainServer,
        query: Rows,
        key: Rows,
        pool: npt.NDArray[np.int64],
        heard: npt.NDArray[np.bool_],
        *,
        keep_memory: bool,
        answer: bool,
    ) -> tuple[Rows | None, StepReport]:
        """The server's step with those it has heard, ``[rows, h, w, C]``; nothing where it hears nobody."""
        if not heard.any():
            return query.map(torch.zeros_like) if answer else None, UNHEARD
        everybody = bool(heard.all())
        arrived, everyone = torch.from_numpy(np.repeat(heard, self._rows * self._factors[pool])), query
        query, key = (rows if everybody else rows[arrived] for rows in (query, key))
        query, key = (rows.map(lambda part: part.movedim(-1, 1)) for rows in (query, key))
        gradient, report = server.step(query, key, pool[heard], keep_memory=keep_memory, answer=answer)
        if gradient is None:
            return None, report
        gradient = gradient.map(lambda part: of_samples(self._gradient, part).movedim(1, -1))
        return gradient if everybody else gradient.among(everyone, arrived), report

    def _upload(self, smashed: Smashed) -> tuple[Rows | None, Rows | None]:
        """Query and key ``[rows, h, w, C]`` as they arrive on the server, in client order; None elsewhere."""
        with self._meter.phase("client_forward"):
            sent = [[of_samples(self._smashed, block).movedim(2, -1) for block in part] for part in smashed]
        with self._meter.phase("exchange"):
            query, key = (self._gather(name, part) for name, part in zip(("query", "key"), sent, strict=True))
        for part in smashed:
            part.clear()  # they have been sent: while the server works, nobody needs them here
        return query, key

    def _gather(self, name: str, sent: Sequence[Tensor]) -> Rows | None:
        """Rows ``[lanes, rows, h, w, C]`` of this rank's blocks to those of all clients, a collective for each cut.

        They lie in windows where there are any, until the next step's come.
        """
        kinds, exchange = self._exchange.kinds, self._exchange
        parts = []
        for kind, shape in enumerate(self._shapes):
            own = [block for block, its in zip(sent, kinds, strict=True) if its == kind]
            parts.append(exchange.rows_up(own, self._rows, shape, self._dtype, kind, window=f"{name} {kind}"))
        arrived = [part.to(self._device) for part in parts if part is not None]
        return Rows(tuple(arrived)) if self._server is not None else None

    def _download(self, gradient: Rows | None, batches: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The inverse of ``_gather``; ``batches``: lanes and rows of each of them, for each block here."""
        kinds, found = self._exchange.kinds, []
        for kind, shape in enumerate(self._shapes):
            own = [batch for batch, its in zip(batches, kinds, strict=True) if its == kind]
            part = gradient.parts[kind] if gradient is not None else None
            window = f"query {kind}"  # whose shape it has, and whose place it takes when the server is done with them
            found += self._exchange.rows_down(part, own, self._rows, shape, self._dtype, kind, window=window)
        return [part.to(self._device) for part in found]  # blocks stand in this order


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
        blocks = self._clients.blocks
        beside: Sequence[Tensor | None] = smashed[1] or [None] * len(blocks)
        with self._meter.phase("client_backward"):
            done = [self._learn(*parts) for parts in zip(blocks, smashed[0], beside, strict=True)]
        with self._meter.phase("exchange"):
            table = self._exchange.up([scores for _, scores in done], [2], torch.float64)
            queries = self._queries(smashed[0]) if keep_memory else None
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
