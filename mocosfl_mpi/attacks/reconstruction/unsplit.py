"""Pixels and a copy of the client's part at once, by who knows the layers and not their weights."""

from __future__ import annotations

from typing import ClassVar

import torch

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.reconstruction.optimisation import total_variation
from mocosfl_mpi.attacks.view import Sight, View

ROUNDS, INPUT_STEPS, MODEL_STEPS = 1000, 100, 100
"""Effort scales the rounds."""
LEARNING_RATE = 1e-3
SMOOTHNESS, SIZE = 0.1, 0.01
"""Weights of total variation and of the mean square of normalised pixels, beside a feature error relative to what was
sent. Published are 0.1 and 1, beside one in the units of the layer; where those are small, every pixel turns black."""


class UnSplit:
    """Alternate steps on pixels and on the weights of a clone, until it would have sent what was sent.

    One clone for all images: they are known to come from one client, so this adversary has more than the published one,
    who starts a clone for each image.
    """

    name: ClassVar[str] = "unsplit"
    kind: ClassVar[Kind] = "reconstruction"
    needs: ClassVar[frozenset[Sight]] = frozenset({"smashed", "architecture"})
    source: ClassVar[str] = (
        "Erdoğan, Küpçü & Çiçek, UnSplit: Data-Oblivious Model Inversion, Model Stealing, and Label Inference Attacks "
        "against Split Learning, WPES 2022"
    )

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Pixels of the images whose smashed data the view has; no image of the adversary's own is used."""
        assert view.smashed is not None
        assert view.architecture is not None
        clone = view.architecture(seed)
        pixels = torch.full((len(view.smashed), *view.image_shape), 0.5, requires_grad=True)
        inputs = torch.optim.Adam([pixels], lr=LEARNING_RATE, amsgrad=True)
        model = torch.optim.Adam(clone.parameters(), lr=LEARNING_RATE, amsgrad=True)
        error = energy = view.smashed.square().mean().clamp(min=1e-12)
        for _ in range(effort.steps(ROUNDS)):
            for _ in range(INPUT_STEPS):
                seen = view.normalise(pixels)
                feature = (clone(seen) - view.smashed).square().flatten(1).mean(dim=1) / energy
                size = seen.square().flatten(1).mean(dim=1)
                inputs.zero_grad()
                (feature + SMOOTHNESS * total_variation(pixels) + SIZE * size).sum().backward()
                inputs.step()
                with torch.no_grad():
                    pixels.clamp_(0.0, 1.0)
            seen = view.normalise(pixels.detach())
            for _ in range(MODEL_STEPS):
                error = (clone(seen) - view.smashed).square().mean() / energy
                model.zero_grad()
                error.backward()
                model.step()
        return Guess(pixels.detach(), {"feature_error": error.item()})
