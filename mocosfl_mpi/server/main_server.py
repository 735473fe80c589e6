"""The main server: it holds the trunk, its momentum copy and the feature memory, and answers with gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.clients.wealth import factors
from mocosfl_mpi.config import Config
from mocosfl_mpi.objectives.contrast import info_nce, symmetry
from mocosfl_mpi.objectives.feature_memory import FeatureMemory
from mocosfl_mpi.rows import Maps, Rows
from mocosfl_mpi.server.protocol import Traffic
from mocosfl_mpi.server.report import StepReport
from mocosfl_mpi.server.stretches import Stretches
from mocosfl_mpi.server.trunk_server import TrunkServer, overwrite
from mocosfl_mpi.split.cut import Trunk
from mocosfl_mpi.split.engine import CPU, Engine
from mocosfl_mpi.split.layers import mixes_rows
from mocosfl_mpi.streams import Streams

Ids = npt.NDArray[np.int64]
MICRO_BATCH = 64
"""Most rows per pass unless `server.micro_batch` says otherwise: bounds the memory of a step, and keeps more of it in
the processor's caches (measured: 8 % faster than 100 rows at once)."""
ON_DEVICE = 256
"""The same on a GPU, which has no such caches to keep and wants few large kernels. A bound on memory: a row of the
published ResNet-18 behind its first layer takes up to 24 MiB in bfloat16, 48 in float32."""


class Part(NamedTuple):
    """Rows that pass the trunk together."""

    rows: slice
    owners: Ids
    """The clients whose rows they are."""
    own: Sequence[int] | None
    """Rows of each of them; None = equally many."""


class MainServer(TrunkServer):
    """Trunk S, momentum trunk S' and feature memory of MocoSFL, updated by SGD."""

    def __init__(self, config: Config, trunk: Trunk, key_dim: int, streams: Streams, engine: Engine) -> None:
        super().__init__(config, trunk, engine)
        self._symmetry = symmetry(config)
        self._factors = factors(config)
        self._mixes_rows = mixes_rows(trunk)
        self._most = MICRO_BATCH if engine.device == CPU else ON_DEVICE
        self.momentum = copy.deepcopy(trunk).requires_grad_(False)
        self._momentum_passes = Stretches(self.momentum.backbone, engine, config.model.between_cuts)
        self.memory = FeatureMemory(
            config.contrast.memory_length,
            key_dim,
            config.client.count,
            shared=config.contrast.share_features,
            streams=streams,
            dtype=engine.weights,
            device=engine.device,
        )

    def step(
        self, traffic: Traffic[Maps], pool: npt.NDArray[np.int64], /, *, keep_memory: bool = False, answer: bool = True
    ) -> StepReport:
        """One step on the smashed data of ``pool``'s clients, part after part as they come.

        Each part's gradient goes out as soon as it is there, if clients want an ``answer``.
        Order of work as published: EMA of the trunk, forward and loss, enqueue, backward, SGD. Micro-batches sum to the
        same result: negatives come from the memory alone and GroupNorm looks at one sample at a time (BatchNorm: see
        `_chunk`).
        """
        rows, weights = len(traffic), self._factors[pool]
        own = weights * (rows // int(weights.sum()))
        self._update_momentum()
        self._momentum_passes.begin()
        self.optimiser.zero_grad(set_to_none=True)
        self._online_passes.begin()
        loss, hits = 0.0, 0
        units: list[Tensor] = []
        keys: list[Tensor] = []
        swapped: list[Tensor] = []
        for part in self._parts(pool, own, rows // int(weights.sum())):
            query, key = traffic.take(part.rows)
            keys.append(self._keys(key))
            term, right, unit, gradient = self._contrast(query, keys[-1], part, rows, answer)
            if self._symmetry.server_swap:
                swapped.append(self._keys(query))
                term += self._contrast(key, swapped[-1], part, rows, False)[0]
            loss += term
            hits += right
            units.append(unit)
            if gradient is not None:
                traffic.answer(gradient)
        self._online_passes.end()
        before = self.memory.newest_first() if keep_memory and self.memory.shared else None
        fresh = torch.stack([torch.cat(unit) for unit in (swapped, keys) if unit])
        self.memory.enqueue(fresh, pool, own.tolist())
        self.optimiser.step()
        return StepReport(loss, hits / rows, torch.cat(units), before, fresh.shape[0] * rows)

    def _parts(self, pool: Ids, own: Ids, least: int) -> Iterator[Part]:
        """The passes of a step, in order: clients with as many rows each are cut into parts (see `_chunk`).

        Where memories are private a pass holds whole clients, otherwise ``least`` rows of the poorest are indivisible.
        """
        if self._mixes_rows:
            yield Part(slice(0, int(own.sum())), pool, own.tolist())
            return
        begin = 0
        for alike in np.split(np.arange(len(pool)), np.flatnonzero(np.diff(own)) + 1):
            each = int(own[alike[0]])
            rows = each * len(alike)
            chunk = self._chunk(rows, least if self.memory.shared else each)
            for start in range(0, rows, chunk):
                end = min(start + chunk, rows)
                owners = pool[alike[start // each : -(-end // each)]]
                yield Part(slice(begin + start, begin + end), owners, None)
            begin += rows

    def _chunk(self, rows: int, own: int) -> int:
        """Rows per pass: as set, or equal parts, multiples of ``own``.

        But all rows of the pool pass at once where BatchNorm looks at them, as in the published code.
        """
        if self._config.server.micro_batch:
            return self._config.server.micro_batch
        parts = -(-rows // self._most)
        return -(-rows // own // parts) * own

    def _contrast(
        self, smashed: Maps, keys: Tensor, part: Part, rows: int, wants_input: bool
    ) -> tuple[float, int, Tensor, Maps | None]:
        """One micro-batch there and back: its part of the loss, hits, unit queries, gradient at the smashed data."""
        maps, pullback = self._online_passes.forward_with_pullback(smashed, wants_input=wants_input)
        maps.requires_grad_()
        unit = F.normalize(self.online.head(self.online.pool(maps)), dim=1)
        negatives = self.memory.similarities(unit, part.owners, part.own)
        total, hits = info_nce(unit, keys, negatives, self._config.contrast.temperature)
        total = total / rows
        total.backward()
        assert maps.grad is not None
        return float(total.detach()), hits, unit.detach(), pullback(maps.grad)

    @torch.no_grad()
    def _keys(self, smashed: Tensor | Rows) -> Tensor:
        """Unit keys ``[n, d]`` of the momentum trunk."""
        trunk = self.momentum
        return F.normalize(trunk.head(trunk.pool(self._momentum_passes.forward(smashed))), dim=1)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that training changes, by kind: trunk, momentum trunk, SGD velocity, feature memory."""
        return {
            "online": self.online.state_dict(),
            "momentum": self.momentum.state_dict(),
            "velocity": self._velocity(),
            "memory": {"keys": self.memory.keys, "position": torch.from_numpy(self.memory.position)},
        }

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of ``state``, in place. RuntimeError or KeyError where names or shapes differ."""
        self._begin_velocity()
        overwrite(self.state(), state)

    @torch.no_grad()
    def _update_momentum(self) -> None:
        """S' ← τ·S' + (1-τ)·S, parameters only: a no-op at the first step, where both are equal."""
        weight = 1.0 - self._config.contrast.momentum
        torch._foreach_lerp_(list(self.momentum.parameters()), list(self.online.parameters()), weight)
