"""A client that holds both ends of the network, its first layers and its classifier: U-shaped split learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mocosfl_mpi.split.cut import Ends
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.stacked import Pullback, StackedModel


class StackedEnds(StackedModel):
    """Both ends as functions of the same flat weights ``[lanes, P]``, the classifier's last in each row.

    What ``forward`` computes are the first layers; their gradient says nothing about the classifier, whose own comes
    from ``classify``.
    """

    def __init__(self, ends: Ends, engine: Engine) -> None:
        plain = engine if engine.backend == "loop" else replace(engine, backend="stacked")
        super().__init__(ends, plain)
        self._first = StackedModel(ends.backbone, engine)
        self._head = StackedModel(ends.head, replace(plain, precision="fp64" if engine.precision == "fp64" else "fp32"))
        self._edge = self._first.parameters

    def forward(self, flat: Tensor, images: Tensor) -> Tensor:
        """Smashed data ``[lanes, n, C, h, w]``; keeps no graph."""
        return self._first.forward(flat[:, : self._edge].contiguous(), images)

    def forward_with_pullback(self, flat: Tensor, images: Tensor) -> tuple[Tensor, Pullback]:
        """Smashed data, and the function from their gradients to ``[lanes, P]``, 0 at the classifier."""
        smashed, back = self._first.forward_with_pullback(flat[:, : self._edge].contiguous(), images)

        def pullback(gradient: Tensor) -> Tensor:
            found = back(gradient)
            return torch.cat([found, found.new_zeros(len(found), self.parameters - self._edge)], dim=1)

        return smashed, pullback

    def classify(self, flat: Tensor, features: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        """Logits ``[lanes, n, classes]`` of features ``[lanes, n, f]``, and the function from the gradients at them.

        To gradients ``[lanes, P]`` at the weights, 0 but at the classifier, and at the features.
        """
        logits, back = self._head.forward_with_full_pullback(flat[:, self._edge :], features)

        def pullback(gradient: Tensor) -> tuple[Tensor, Tensor]:
            found, at_features = back(gradient)
            return torch.cat([found.new_zeros(len(found), self._edge), found], dim=1), at_features

        return logits, pullback
