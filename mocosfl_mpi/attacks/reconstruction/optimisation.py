"""Pixels by gradient descent on the distance of their smashed data from those that were sent."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.view import Sight, View

STEPS = 5000
"""He et al. 2019; with an effort of less than 1 the steps are fewer, and no longer."""
LEARNING_RATE = 0.05
"""On logits of pixels; He et al. have 0.01 on pixels."""
SHALLOW, DEEP = 0.1, 1.0
"""Weights of total variation beside a feature error that is 1 for a guess whose smashed data are all zero. Behind more
layers pixels are held by their features more loosely, and smoothness must say more (He et al.: 0 and 10)."""
START = 1.0
"""Standard deviation of the first logits. A grey start would stay pale behind a layer that normalises contrast away."""
MEMORY = 0.9
"""Of the mean change that a random defence makes, from step to step."""


class WhiteBox:
    """Regularised maximum likelihood (rMLE): what could have been sent, and is smooth."""

    kind: ClassVar[Kind] = "reconstruction"
    needs: ClassVar[frozenset[Sight]] = frozenset({"smashed", "weights"})
    source: ClassVar[str] = (
        "He, Zhang & Lee, Model Inversion Attacks Against Collaborative Inference, ACSAC 2019 (rMLE); pixels boxed by "
        "a sigmoid; expectation over a defence's draws after Athalye et al., ICML 2018"
    )

    def __init__(self, smoothness: float = SHALLOW, name: str = "white_box") -> None:
        self.smoothness = smoothness
        self.name = name

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Pixels of all images at once: an image's loss has no part of another.

        The notes have the feature error that is left: a small one beside wrong pixels says that many images would
        have sent the same, not that the images are safe.
        """
        assert view.smashed is not None
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(len(view.smashed), *view.image_shape, generator=generator).mul_(START).requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=LEARNING_RATE, amsgrad=True)
        energy = view.smashed.square().flatten(1).sum(dim=1).clamp(min=1e-12)
        change: Tensor | None = None
        feature = energy
        for _ in range(effort.steps(STEPS)):
            pixels = logits.sigmoid()
            clean = view.compute(pixels)
            change = changed(view, clean.detach(), pixels.detach(), change, generator)
            feature = (clean + change - view.smashed).square().flatten(1).sum(dim=1) / energy
            optimiser.zero_grad()
            (feature + self.smoothness * total_variation(pixels)).sum().backward()
            optimiser.step()
        return Guess(logits.detach().sigmoid(), {"feature_error": feature.mean().item()})


def changed(view: View, clean: Tensor, pixels: Tensor, before: Tensor | None, generator: torch.Generator) -> Tensor:
    """What the defence does to ``clean``, the expectation over its draws as a running mean: ``before`` is the last.

    The gradient passes a defence straight through, as though it had changed nothing: defences cut, round and drop,
    and their own derivatives lead nowhere (backward pass differentiable approximation, Athalye et al. 2018).
    """
    now = view.guard(clean, generator, view.normalise(pixels)) - clean
    return now if before is None else MEMORY * before + (1.0 - MEMORY) * now


def total_variation(pixels: Tensor) -> Tensor:
    """Mean squared difference of neighbours, of each image ``[n]``."""
    down, right = pixels.diff(dim=2).square(), pixels.diff(dim=3).square()
    return down.flatten(1).mean(dim=1) + right.flatten(1).mean(dim=1)
