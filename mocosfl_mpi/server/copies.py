"""A copy of the trunk for every client of the pool, all updated at once and averaged with the clients: SFL-V1.

Thapa, Arachchige, Camtepe, Sun: SplitFed: when federated learning meets split learning. AAAI 2022, SFL-V1: the server
processes the clients' smashed data in parallel, each with a copy of its own, and averages the copies when the fed
server averages the clients' parts. Here their SGD velocities are averaged with them, so that no momentum is lost and a
copy owes nothing to the client that had it before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.config import Config
from mocosfl_mpi.objectives.local import Outputs, classified
from mocosfl_mpi.server.report import StepReport
from mocosfl_mpi.server.trunk_server import TrunkServer, overwrite
from mocosfl_mpi.split.cut import Encoding, Trunk
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams


class Copies(TrunkServer):
    """One trunk per client of the pool, each ending in a classifier; `online` is their mean at the last averaging."""

    def __init__(self, config: Config, trunk: Trunk, key_dim: int, streams: Streams, engine: Engine) -> None:  # noqa: ARG002 - the protocol's
        super().__init__(config, trunk, engine)
        plain = engine if engine.backend == "loop" else replace(engine, backend="stacked")
        self._model = StackedModel(Encoding(trunk), plain)
        self._classes = key_dim
        self._rate = config.server.lr
        self._weights = self._model.flat(trunk).expand(config.pool_size, -1).clone()
        self._velocities = torch.zeros_like(self._weights)

    def begin_epoch(self, epoch: int) -> float:
        """Set the epoch's learning rate and return it."""
        self._rate = super().begin_epoch(epoch)
        return self._rate

    @torch.no_grad()
    def step(
        self,
        smashed: Tensor,
        labels: Tensor,
        pool: npt.NDArray[np.int64],
        /,
        *,
        keep_memory: bool = False,  # noqa: ARG002
    ) -> tuple[Tensor, StepReport]:
        """Forward, backward and SGD of every copy on its client's rows; gradients at the cut, and a report.

        ``smashed`` ``[rows, C, h, w]`` and ``labels`` ``[rows]``: equally many rows for each client, in the pool's
        order; so are the gradients, each of the mean loss over the client's own rows.
        """
        lanes, block = len(pool), self._config.block_size
        inputs, own = smashed.contiguous().unflatten(0, (lanes, -1)), labels.view(lanes, -1)
        gradients, units, scores = [], [], []
        for start in range(0, lanes, block):
            part = slice(start, start + block)
            outputs, pullback = self._model.forward_with_full_pullback(self._weights[part], inputs[part])
            features, logits = outputs[..., : -self._classes], outputs[..., -self._classes :].requires_grad_()
            with torch.enable_grad():
                loss, hits = classified(Outputs(logits, None, None, 1.0, own[part]))
                loss.sum().backward()
            assert logits.grad is not None
            at_weights, at_inputs = pullback(torch.cat([torch.zeros_like(features), logits.grad], dim=-1))
            self._descend(part, at_weights)
            gradients.append(at_inputs)
            units.append(F.normalize(features, dim=-1))
            scores.append(torch.stack([loss.detach(), hits]).to(torch.float64))
        loss, hits = torch.cat(scores, dim=1).mean(dim=1)
        return torch.cat(gradients).flatten(0, 1), StepReport(float(loss), float(hits), torch.cat(units).flatten(0, 1))

    def _descend(self, part: slice, gradient: Tensor) -> None:
        """Torch's SGD, one copy a row: v ← μ·v + (g + λ·w), w ← w - rate·v."""
        settings, weights, velocity = self._config.server, self._weights[part], self._velocities[part]
        velocity.mul_(settings.momentum).add_(gradient).add_(weights, alpha=settings.weight_decay)
        weights.sub_(velocity, alpha=self._rate)

    @torch.no_grad()
    def synchronise(self, weights: npt.NDArray[np.float64]) -> None:
        """Average the copies and their velocities, in float64 and client after client."""
        for rows in (self._weights, self._velocities):
            total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
            for weight, row in zip(weights, rows, strict=True):
                total.add_(row, alpha=float(weight))
            rows[:] = (total / float(weights.sum())).to(rows.dtype)
        parameters = list(self.online.parameters())
        for parameter, part in zip(parameters, self._weights[0].split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))  # into its place: fused passes hold views

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that training changes, by kind: the mean, the copies with their velocities."""
        copies = {"weights": self._weights, "velocities": self._velocities}
        return {"online": self.online.state_dict(), "copies": copies}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of ``state``, in place. RuntimeError or KeyError where names or shapes differ."""
        overwrite(self.state(), state)
