"""Pixels by gradient descent on the distance of their smashed data from those that were sent."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.view import Sight, View, unguarded

STEPS = 5000
"""He et al. 2019; with an effort of less than 1 the steps are fewer, and no longer."""
LEARNING_RATE = 0.05
"""On logits of pixels; He et al. have 0.01 on pixels."""
SMOOTHNESS = 0.1
"""Weight of total variation beside a feature error that is 1 for a guess whose smashed data are all zero."""
DRAWS = 4
"""Draws of a random defence whose mean is compared in each step."""


class WhiteBox:
    """Regularised maximum likelihood (rMLE): what could have been sent, and is smooth."""

    name: ClassVar[str] = "white_box"
    kind: ClassVar[Kind] = "reconstruction"
    needs: ClassVar[frozenset[Sight]] = frozenset({"smashed", "weights"})
    source: ClassVar[str] = (
        "He, Zhang & Lee, Model Inversion Attacks Against Collaborative Inference, ACSAC 2019 (rMLE); pixels boxed by "
        "a sigmoid; expectation over a defence's draws after Athalye et al., ICML 2018"
    )

    def __init__(self, smoothness: float = SMOOTHNESS) -> None:
        self.smoothness = smoothness

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Pixels of all images at once: an image's loss has no part of another.

        The notes have the feature error that is left: a small one beside wrong pixels says that many images would
        have sent the same, not that the images are safe.
        """
        assert view.smashed is not None
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(len(view.smashed), *view.image_shape, generator=generator).mul_(0.1).requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=LEARNING_RATE, amsgrad=True)
        energy = view.smashed.square().flatten(1).sum(dim=1).clamp(min=1e-12)
        for _ in range(effort.steps(STEPS)):
            pixels = logits.sigmoid()
            feature = (believed(view, pixels, generator) - view.smashed).square().flatten(1).sum(dim=1) / energy
            optimiser.zero_grad()
            (feature + self.smoothness * total_variation(pixels)).sum().backward()
            optimiser.step()
        with torch.no_grad():
            guess = logits.sigmoid()
            left = (believed(view, guess, generator) - view.smashed).square().flatten(1).sum(dim=1) / energy
        return Guess(guess, {"feature_error": float(left.mean())})


def believed(view: View, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """What the adversary thinks is sent of ``pixels``, the mean over draws of the defence.

    The gradient passes a defence straight through, as though it had changed nothing: defences cut, round and drop,
    and their own derivatives lead nowhere (backward pass differentiable approximation, Athalye et al. 2018).
    """
    clean = view.compute(pixels)
    if view.guard is unguarded:
        return clean
    with torch.no_grad():
        sent = torch.stack([view.guard(clean.detach(), generator) for _ in range(DRAWS)]).mean(dim=0)
        change = sent - clean
    return clean + change


def total_variation(pixels: Tensor) -> Tensor:
    """Mean squared difference of neighbours, of each image ``[n]``."""
    down, right = pixels.diff(dim=2).square(), pixels.diff(dim=3).square()
    return down.flatten(1).mean(dim=1) + right.flatten(1).mean(dim=1)
