"""One step's traffic between clients and main server where clients learn from labels, which they send or keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.clients.reliability import Delivery
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.stream import Stream
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.objectives.local import Outputs, classified
from mocosfl_mpi.routes import Smashed, channels_first
from mocosfl_mpi.rows import Rows
from mocosfl_mpi.server.middle import Middle
from mocosfl_mpi.server.protocol import LossServer
from mocosfl_mpi.server.report import StepReport
from mocosfl_mpi.split.ends import StackedEnds
from mocosfl_mpi.split.engine import Engine


def upload(stream: Stream, smashed: Smashed, meter: Meter) -> list[Tensor]:
    """Send the smashed data of this rank's blocks; what they have beside them, labels ``[lanes, rows]``."""
    with meter.phase("exchange"):
        stream.begin()
    labels = []
    for maps, own in smashed:
        assert own is not None
        labels.append(own)
        with meter.phase("exchange"):
            stream.send(maps.movedim(2, -1))
    with meter.phase("exchange"):
        stream.sent()
    return labels


def arrived(stream: Stream, meter: Meter) -> Tensor:
    """All that was sent, on rank 0: ``[rows, C, h, w]``, clients in order."""
    with meter.phase("exchange"):
        (rows,) = stream.take(slice(None))
    return channels_first(rows.only)


def download(stream: Stream, meter: Meter) -> list[Tensor]:
    """The gradients of this rank's blocks ``[lanes, rows, C, h, w]``."""
    with meter.phase("exchange"):
        stream.end(down=True)
        return [part.movedim(-1, 2) for part in stream.receive()]


class LabelsUp:
    """The loss lives on the main server: smashed data and labels up, the gradient at the cut down. One round trip."""

    def __init__(
        self,
        server: LossServer | None,
        stream: Stream,
        exchange: Exchange,
        meter: Meter,
        rows: int,
        engine: Engine,
    ) -> None:
        self._server = server
        self._stream = stream
        self._exchange = exchange
        self._meter = meter
        self._rows = rows
        self._dtype = engine.activations
        self._device = engine.device
        self.report: StepReport | None = None

    def gradient_at_cut(
        self,
        smashed: Smashed,
        pool: npt.NDArray[np.int64],
        delivery: Delivery,  # noqa: ARG002 - of everything: the configuration refuses losses here
        *,
        keep_memory: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[Tensor] | None:
        """Smashed data of this rank's blocks to their gradients, ``[lanes, rows, C, h, w]`` per block.

        ``meanwhile`` is what clients can do until the gradient comes.
        """
        own = upload(self._stream, smashed, self._meter)
        with self._meter.phase("exchange"):
            labels = self._exchange.up(own, [self._rows], torch.int64)
        if meanwhile is not None:
            meanwhile()
        if self._server is not None and labels is not None:
            with self._meter.phase("server"):
                maps = arrived(self._stream, self._meter)
                found, self.report = self._server.step(
                    maps, labels.flatten().to(self._device), pool, keep_memory=keep_memory
                )
                assert found is not None
                self._stream.answer(Rows((found.movedim(1, -1).to(self._dtype),)))
        return download(self._stream, self._meter)


class UShaped:
    """The loss lives on the client, behind the server: smashed data up, features down, and both gradients back.

    Two round trips. Neither labels nor logits leave the client. Ranks tell rank 0 the losses for the record; simulated
    clients send none.
    """

    def __init__(
        self,
        server: Middle | None,
        clients: Population,
        model: StackedEnds,
        stream: Stream,
        exchange: Exchange,
        meter: Meter,
        rows: int,
        features: int,
        engine: Engine,
    ) -> None:
        self._server = server
        self._clients = clients
        self._model = model
        self._stream = stream
        self._exchange = exchange
        self._meter = meter
        self._features = (rows, features)
        self._dtype = engine.activations
        self._device = engine.device
        self.report: StepReport | None = None

    def gradient_at_cut(
        self,
        smashed: Smashed,
        pool: npt.NDArray[np.int64],  # noqa: ARG002
        delivery: Delivery,  # noqa: ARG002 - of everything: the configuration refuses losses here
        *,
        keep_memory: bool = False,  # noqa: ARG002
        meanwhile: Callable[[], None] | None = None,
    ) -> list[Tensor] | None:
        """Smashed data of this rank's blocks to their gradients, ``[lanes, rows, C, h, w]`` per block.

        The classifiers' own gradients wait in their blocks. ``meanwhile`` is what clients can do until features come.
        """
        own = upload(self._stream, smashed, self._meter)
        if meanwhile is not None:
            meanwhile()
        features = None
        if self._server is not None:
            with self._meter.phase("server"):
                features = self._server.forward(arrived(self._stream, self._meter))
        with self._meter.phase("exchange"):
            received = self._exchange.down(
                None if features is None else features.unflatten(0, (-1, self._features[0])),
                self._clients.lanes,
                self._features,
                self._clients.dtype,
            )
            received = [part.to(self._device) for part in received]
        with self._meter.phase("client_backward"):
            done = [self._learn(*parts) for parts in zip(self._clients.blocks, received, own, strict=True)]
        with self._meter.phase("exchange"):
            found = self._exchange.up([at_features for at_features, _ in done], self._features, self._clients.dtype)
            table = self._exchange.up([scores for _, scores in done], [2], torch.float64)
        if self._server is not None and found is not None and table is not None and features is not None:
            with self._meter.phase("server"):
                gradient = self._server.backward(found.flatten(0, 1).to(self._device))
                self._stream.answer(Rows((gradient.movedim(1, -1).to(self._dtype),)))
            loss, hits = table.mean(dim=0).tolist()
            self.report = StepReport(loss, hits, F.normalize(features, dim=1))
        return download(self._stream, self._meter)

    def _learn(self, block: Block, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient at the features, and (loss, hits) of each lane ``[lanes, 2]``.

        The classifier's own gradient waits in the block.
        """
        logits, pullback = self._model.classify(block.state["online"], features)
        logits.requires_grad_()
        with torch.enable_grad():
            loss, hits = classified(Outputs(logits, None, None, 1.0, labels))
            loss.sum().backward()
        assert logits.grad is not None
        block.apart, at_features = pullback(logits.grad)
        return at_features, torch.stack([loss.detach(), hits], dim=1).to(torch.float64)
