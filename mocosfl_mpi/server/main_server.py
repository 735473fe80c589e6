"""The main server: it holds the trunk, its momentum copy and the feature memory, and answers with gradients."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.config import Config
from mocosfl_mpi.objectives.contrast import SYMMETRIES, info_nce
from mocosfl_mpi.objectives.feature_memory import FeatureMemory
from mocosfl_mpi.schedules import learning_rate
from mocosfl_mpi.split.cut import Trunk
from mocosfl_mpi.streams import Streams

SERVER_DECAY = 0.1


@dataclass(frozen=True)
class StepReport:
    """After a step: loss, contrastive accuracy (share of queries), unit queries ``[rows, d]``.

    ``memory_before``: the memory they were contrasted with, newest key first, where it was asked for;
    ``keys_per_update``: how many keys a step adds to it.
    """

    loss: float
    accuracy: float
    queries: Tensor
    memory_before: Tensor | None
    keys_per_update: int


class MainServer:
    """Trunk S, momentum trunk S' and feature memory of MocoSFL, updated by SGD."""

    def __init__(self, config: Config, trunk: Trunk, key_dim: int, streams: Streams) -> None:
        self._config = config
        self._symmetry = SYMMETRIES[config.contrast.symmetric]
        self._wants_gradient = not config.client.frozen
        self.online = trunk.train()
        self.momentum = copy.deepcopy(trunk).requires_grad_(False)
        self.memory = FeatureMemory(
            config.contrast.memory_length,
            key_dim,
            config.client.count,
            shared=config.contrast.share_features,
            streams=streams,
            dtype=next(trunk.parameters()).dtype,
        )
        self.optimiser = torch.optim.SGD(
            self.online.parameters(),
            lr=config.server.lr,
            momentum=config.server.momentum,
            weight_decay=config.server.weight_decay,
        )

    def begin_epoch(self, epoch: int) -> float:
        """Set the epoch's learning rate and return it."""
        settings = self._config.server
        rate = learning_rate(settings.schedule, settings.lr, epoch, self._config.epochs, SERVER_DECAY)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def step(
        self, query: Tensor, key: Tensor, pool: npt.NDArray[np.int64], *, keep_memory: bool = False
    ) -> tuple[Tensor | None, StepReport]:
        """One step on the pool's smashed data; the gradient at the cut, and a report.

        ``query`` and ``key``: ``[rows, C, h, w]``, equally many rows for each client of ``pool``, in its order.
        Order of work as published: EMA of the trunk, forward and loss, enqueue, backward, SGD. The gradient has
        the shape of ``query``; None when clients are frozen and want none. Micro-batches sum to the same result:
        negatives come from the memory alone and GroupNorm looks at one sample at a time.
        """
        temperature = self._config.contrast.temperature
        rows = len(query)
        chunk = self._config.server.micro_batch or rows
        self._update_momentum()
        with torch.no_grad():
            keys = torch.cat([self._unit(self.momentum, part) for part in key.split(chunk)])
            swapped = (
                torch.cat([self._unit(self.momentum, part) for part in query.split(chunk)])
                if self._symmetry.server_swap
                else None
            )
        self.optimiser.zero_grad(set_to_none=True)
        query = query.detach().requires_grad_(self._wants_gradient)
        loss, hits, units = 0.0, 0, []
        for start in range(0, rows, chunk):
            part = slice(start, start + chunk)
            owners = pool[start * len(pool) // rows : -(-min(start + chunk, rows) * len(pool) // rows)]
            unit = self._unit(self.online, query[part])
            total, right = info_nce(unit, keys[part], self.memory.similarities(unit, owners), temperature)
            if swapped is not None:
                other = self._unit(self.online, key[part])
                negatives = self.memory.similarities(other, owners)
                total = total + info_nce(other, swapped[part], negatives, temperature)[0]
            total = total / rows
            total.backward()
            loss += float(total.detach())
            hits += right
            units.append(unit.detach())
        before = self.memory.newest_first() if keep_memory and self.memory.shared else None
        fresh = torch.stack([keys] if swapped is None else [swapped, keys])
        self.memory.enqueue(fresh, pool)
        self.optimiser.step()
        return query.grad, StepReport(loss, hits / rows, torch.cat(units), before, fresh.shape[0] * rows)

    def _unit(self, trunk: nn.Module, smashed: Tensor) -> Tensor:
        return F.normalize(trunk(smashed), dim=1)

    @torch.no_grad()
    def _update_momentum(self) -> None:
        """S' ← τ·S' + (1-τ)·S, parameters only: a no-op at the first step, where both are equal."""
        weight = 1.0 - self._config.contrast.momentum
        torch._foreach_lerp_(list(self.momentum.parameters()), list(self.online.parameters()), weight)
