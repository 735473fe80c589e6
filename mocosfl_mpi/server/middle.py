"""The middle of the network, without labels or loss: the server of U-shaped split learning.

Vepakomma, Gupta, Swedish, Raskar: Split learning for health: distributed deep learning without sharing raw patient
data. 2018, the U-shaped configuration without label sharing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mocosfl_mpi.config import Config
from mocosfl_mpi.server.passes import Pullback
from mocosfl_mpi.server.trunk_server import TrunkServer, overwrite
from mocosfl_mpi.split.cut import Trunk
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.streams import Streams


class Middle(TrunkServer):
    """A trunk between two halves of a step: smashed data to features, then from the gradient at these on."""

    def __init__(self, config: Config, trunk: Trunk, key_dim: int, streams: Streams, engine: Engine) -> None:  # noqa: ARG002 - the protocol's
        super().__init__(config, trunk, engine)
        self._waiting: tuple[Tensor, Pullback] | None = None

    def forward(self, smashed: Tensor) -> Tensor:
        """Smashed data ``[rows, C, h, w]`` to features ``[rows, f]``, in the type of the weights."""
        self.optimiser.zero_grad(set_to_none=True)
        self._online_passes.begin()
        maps, pullback = self._online_passes.forward_with_pullback(smashed, wants_input=True)
        self._waiting = maps, pullback
        with torch.no_grad():
            return self.online.pool(maps)

    def backward(self, gradient: Tensor) -> Tensor:
        """From the gradient at the features to that at the cut, and an SGD step."""
        assert self._waiting is not None, "backward without forward"
        maps, pullback = self._waiting
        self._waiting = None
        with torch.enable_grad():
            maps.requires_grad_()
            (at_maps,) = torch.autograd.grad(self.online.pool(maps), maps, gradient)
        found = pullback(at_maps)
        assert found is not None
        self._online_passes.end()
        self.optimiser.step()
        return found

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that training changes, by kind: the middle's weights and SGD velocity."""
        return {"online": self.online.state_dict(), "velocity": self._velocity()}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of ``state``, in place. RuntimeError or KeyError where names or shapes differ."""
        self._begin_velocity()
        overwrite(self.state(), state)
