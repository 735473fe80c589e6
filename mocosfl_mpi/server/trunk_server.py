"""What all main servers with one trunk have in common: optimiser, learning rate, evaluation, state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.config import Config
from mocosfl_mpi.schedules import learning_rate
from mocosfl_mpi.server.stretches import Stretches
from mocosfl_mpi.split.cut import Trunk
from mocosfl_mpi.split.engine import Engine

SERVER_DECAY = 0.1


class TrunkServer:
    """A trunk that is updated by SGD."""

    def __init__(self, config: Config, trunk: Trunk, engine: Engine) -> None:
        self._config = config
        self.online = trunk.to(engine.device).train()
        self._online_passes = Stretches(self.online.backbone, engine, config.model.between_cuts)
        self.optimiser = torch.optim.SGD(
            self.online.parameters(),
            lr=config.server.lr,
            momentum=config.server.momentum,
            weight_decay=config.server.weight_decay,
            fused=True,
        )
        if config.model.between_cuts:  # torch's fused SGD takes velocities of all parameters or of none
            self._begin_velocity()

    def begin_epoch(self, epoch: int) -> float:
        """Set the epoch's learning rate and return it."""
        settings = self._config.server
        rate = learning_rate(settings.schedule, settings.lr, epoch, self._config.epochs, SERVER_DECAY)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def synchronise(self, weights: npt.NDArray[np.float64]) -> None:
        """There is one trunk and nothing to average."""

    def encode(self, smashed: Tensor) -> tuple[Tensor, Tensor]:
        """Features and projections of smashed data as the online trunk has them, for evaluation."""
        self._online_passes.begin()
        with torch.no_grad():
            self.online.eval()
            features = self.online.pool(self._online_passes.forward(smashed))
            projections = self.online.head(features)
            self.online.train()
        return features, projections

    def _velocity(self) -> dict[str, Tensor]:
        """SGD velocity by parameter; zeros before the first step."""
        velocity = {}
        for name, parameter in self.online.named_parameters():
            buffer = self.optimiser.state[parameter].get("momentum_buffer")
            velocity[name] = torch.zeros_like(parameter) if buffer is None else buffer
        return velocity

    def _begin_velocity(self) -> None:
        """Make velocities that can be written to."""
        if self._config.server.momentum:
            for parameter in self.online.parameters():
                self.optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


@torch.no_grad()
def overwrite(own: Mapping[str, Mapping[str, Tensor]], given: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Copy ``given`` into the tensors of ``own``. RuntimeError or KeyError where names or shapes differ."""
    for kind, tensors in own.items():
        if set(tensors) != set(given[kind]):
            raise KeyError(f"{kind}: {sorted(set(tensors) ^ set(given[kind]))[:3]}")
        for name, tensor in tensors.items():
            if tensor.shape != given[kind][name].shape:
                raise RuntimeError(f"{kind}.{name}: {list(given[kind][name].shape)}, not {list(tensor.shape)}")
            tensor.copy_(given[kind][name])
