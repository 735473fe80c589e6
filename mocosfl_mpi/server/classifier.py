"""A trunk that ends in a classifier, and one step of learning with it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.server.trunk_server import TrunkServer


@dataclass(frozen=True)
class Lesson:
    """What one batch gave, before the update: mean loss, rows classified right, unit features, gradient at the cut."""

    loss: float
    hits: int
    units: Tensor
    gradient: Tensor


class Classifier(TrunkServer):
    """Learns from smashed data and their labels, a batch at a time."""

    def _learn(self, smashed: Tensor, labels: Tensor) -> Lesson:
        """Forward, backward and SGD on the mean loss over ``smashed [n, C, h, w]`` with ``labels [n]``."""
        self.optimiser.zero_grad(set_to_none=True)
        self._online_passes.begin()
        maps, pullback = self._online_passes.forward_with_pullback(smashed, wants_input=True)
        maps.requires_grad_()
        features = self.online.pool(maps)
        logits = self.online.head(features)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        assert maps.grad is not None
        gradient = pullback(maps.grad)
        assert gradient is not None
        self._online_passes.end()
        self.optimiser.step()
        hits = int((logits.detach().argmax(dim=1) == labels).sum())
        return Lesson(float(loss.detach()), hits, F.normalize(features.detach(), dim=1), gradient)
