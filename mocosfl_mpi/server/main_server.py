"""The main server: it holds the trunk, its momentum copy and the feature memory, and answers with gradients."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.config import Config
from mocosfl_mpi.objectives.contrast import info_nce, symmetry
from mocosfl_mpi.objectives.feature_memory import FeatureMemory
from mocosfl_mpi.schedules import learning_rate
from mocosfl_mpi.server.passes import passes
from mocosfl_mpi.split.cut import Trunk
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.layers import mixes_rows
from mocosfl_mpi.streams import Streams

SERVER_DECAY = 0.1
MICRO_BATCH = 64
"""Most rows per pass unless `server.micro_batch` says otherwise: bounds the memory of a step, and keeps more of it in
the processor's caches (measured: 8 % faster than 100 rows at once)."""


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

    def __init__(self, config: Config, trunk: Trunk, key_dim: int, streams: Streams, engine: Engine) -> None:
        self._config = config
        self._symmetry = symmetry(config)
        self.online = trunk.train()
        self._mixes_rows = mixes_rows(trunk)
        self.momentum = copy.deepcopy(trunk).requires_grad_(False)
        self._online_passes = passes(self.online.backbone, engine)
        self._momentum_passes = passes(self.momentum.backbone, engine)
        self.memory = FeatureMemory(
            config.contrast.memory_length,
            key_dim,
            config.client.count,
            shared=config.contrast.share_features,
            streams=streams,
            dtype=engine.weights,
        )
        self.optimiser = torch.optim.SGD(
            self.online.parameters(),
            lr=config.server.lr,
            momentum=config.server.momentum,
            weight_decay=config.server.weight_decay,
            fused=True,
        )

    def begin_epoch(self, epoch: int) -> float:
        """Set the epoch's learning rate and return it."""
        settings = self._config.server
        rate = learning_rate(settings.schedule, settings.lr, epoch, self._config.epochs, SERVER_DECAY)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def step(
        self, query: Tensor, key: Tensor, pool: npt.NDArray[np.int64], *, keep_memory: bool = False, answer: bool = True
    ) -> tuple[Tensor | None, StepReport]:
        """One step on the pool's smashed data; the gradient at the cut, and a report.

        ``query`` and ``key``: ``[rows, C, h, w]``, equally many rows for each client of ``pool``, in its order.
        Order of work as published: EMA of the trunk, forward and loss, enqueue, backward, SGD. The gradient has
        the shape of ``query``; None unless clients want an ``answer``. Micro-batches sum to the same result:
        negatives come from the memory alone and GroupNorm looks at one sample at a time (BatchNorm: see `_chunk`).
        """
        rows = len(query)
        chunk = self._chunk(rows)
        self._update_momentum()
        self._momentum_passes.begin()
        keys = self._keys(key, chunk)
        swapped = self._keys(query, chunk) if self._symmetry.server_swap else None
        self.optimiser.zero_grad(set_to_none=True)
        self._online_passes.begin()
        loss, hits, units, gradients = 0.0, 0, [], []
        for start in range(0, rows, chunk):
            part = slice(start, start + chunk)
            owners = pool[start * len(pool) // rows : -(-min(start + chunk, rows) * len(pool) // rows)]
            term, right, unit, gradient = self._contrast(query[part], keys[part], owners, rows, answer)
            if swapped is not None:
                term += self._contrast(key[part], swapped[part], owners, rows, False)[0]
            loss += term
            hits += right
            units.append(unit)
            gradients.append(gradient)
        self._online_passes.end()
        before = self.memory.newest_first() if keep_memory and self.memory.shared else None
        fresh = torch.stack([keys] if swapped is None else [swapped, keys])
        self.memory.enqueue(fresh, pool)
        self.optimiser.step()
        gradient = torch.cat([g for g in gradients if g is not None]) if answer else None
        return gradient, StepReport(loss, hits / rows, torch.cat(units), before, fresh.shape[0] * rows)

    def _chunk(self, rows: int) -> int:
        """Rows per pass: as set, or equal parts of whole clients; all rows where BatchNorm looks at them.

        Such a BatchNorm mixes the rows of all clients of the pool, as it does in the published code.
        """
        if self._config.server.micro_batch:
            return self._config.server.micro_batch
        if self._mixes_rows:
            return rows
        parts, own = -(-rows // MICRO_BATCH), self._config.rows_per_client
        return -(-rows // own // parts) * own

    def _contrast(
        self, smashed: Tensor, keys: Tensor, owners: npt.NDArray[np.int64], rows: int, wants_input: bool
    ) -> tuple[float, int, Tensor, Tensor | None]:
        """One micro-batch there and back: its part of the loss, hits, unit queries, gradient at the smashed data."""
        maps, pullback = self._online_passes.forward_with_pullback(smashed, wants_input=wants_input)
        maps.requires_grad_()
        unit = F.normalize(self.online.head(self.online.pool(maps)), dim=1)
        total, hits = info_nce(unit, keys, self.memory.similarities(unit, owners), self._config.contrast.temperature)
        total = total / rows
        total.backward()
        assert maps.grad is not None
        return float(total.detach()), hits, unit.detach(), pullback(maps.grad)

    @torch.no_grad()
    def _keys(self, smashed: Tensor, chunk: int) -> Tensor:
        """Unit keys ``[rows, d]`` of the momentum trunk."""
        trunk = self.momentum
        maps = (self._momentum_passes.forward(part) for part in smashed.split(chunk))
        return torch.cat([F.normalize(trunk.head(trunk.pool(part)), dim=1) for part in maps])

    def encode(self, smashed: Tensor) -> tuple[Tensor, Tensor]:
        """Features and projections of smashed data as the online trunk has them, for evaluation."""
        self._online_passes.begin()
        with torch.no_grad():
            self.online.eval()
            features = self.online.pool(self._online_passes.forward(smashed))
            projections = self.online.head(features)
            self.online.train()
        return features, projections

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that training changes, by kind: trunk, momentum trunk, SGD velocity, feature memory."""
        velocity = {}
        for name, parameter in self.online.named_parameters():
            buffer = self.optimiser.state[parameter].get("momentum_buffer")
            velocity[name] = torch.zeros_like(parameter) if buffer is None else buffer
        return {
            "online": self.online.state_dict(),
            "momentum": self.momentum.state_dict(),
            "velocity": velocity,
            "memory": {"keys": self.memory.keys, "position": torch.from_numpy(self.memory.position)},
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of ``state``, in place. RuntimeError or KeyError where names or shapes differ."""
        for parameter in self.online.parameters():
            if self._config.server.momentum:
                self.optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        for kind, tensors in self.state().items():
            if set(tensors) != set(state[kind]):
                raise KeyError(f"{kind}: {sorted(set(tensors) ^ set(state[kind]))[:3]}")
            for name, tensor in tensors.items():
                if tensor.shape != state[kind][name].shape:
                    raise RuntimeError(f"{kind}.{name}: {list(state[kind][name].shape)}, not {list(tensor.shape)}")
                tensor.copy_(state[kind][name])

    @torch.no_grad()
    def _update_momentum(self) -> None:
        """S' ← τ·S' + (1-τ)·S, parameters only: a no-op at the first step, where both are equal."""
        weight = 1.0 - self._config.contrast.momentum
        torch._foreach_lerp_(list(self.momentum.parameters()), list(self.online.parameters()), weight)
