"""A network that learns to draw images from smashed data, on images of the adversary's own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.decoders import decoder, macs
from mocosfl_mpi.attacks.view import Sight, View
from mocosfl_mpi.split.layers import seeded

EPOCHS, BATCH, LEARNING_RATE = 50, 32, 1e-3
"""Of the published code; effort scales the epochs."""
HELD_OUT = 0.1
"""Share of the adversary's images that chooses among epochs."""
MACS_PER_PIXEL = 50_000
"""Of the decoders of equal cost: 51 million multiply-accumulates for 32x32 pixels, as the published one has behind
256x8x8 (it has 532 million behind 64x32x32)."""


class Decoder:
    """A decoder of the published families, trained on pairs of smashed data and pixels.

    Unlike the published attack it validates in evaluation mode, on the mean over all held-out images. A defence that
    the view knows of is drawn afresh for each batch (adaptive); for a naive view the training data are undefended.
    ``width`` None takes the width at which the decoder has about `MACS_PER_PIXEL`, so that cuts can be compared: of
    equal width, one behind a shallow cut computes twenty times as much.
    """

    kind: Kind = "reconstruction"
    needs: frozenset[Sight] = frozenset({"smashed", "weights"})
    source: str = (
        "Li et al., ResSFL: A Resistance Transfer Framework for Defending Model Inversion Attack in Split Federated "
        "Learning, CVPR 2022; Li et al., MocoSFL, ICLR 2023"
    )

    def __init__(self, family: Literal["res", "conv"], blocks: int, width: int | None) -> None:
        self.family = family
        self.blocks = blocks
        self.width = width
        self.name = f"decoder_{family}_n{blocks}" + (f"c{width}" if width else "_equal_macs")

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Pixels of the images whose smashed data the view has."""
        assert view.smashed is not None
        generator = torch.Generator().manual_seed(seed)
        clean, images = computed(view), view.normalise(view.own)
        width = self.width or equal_width(self.family, self.blocks, tuple(clean.shape[1:]), view.image_shape)
        with seeded(seed):
            network = decoder(f"{self.family}_normN{self.blocks}C{width}", clean.shape[1:], view.image_shape)
        order = torch.randperm(len(clean), generator=generator)
        held = max(1, round(HELD_OUT * len(order)))
        fit, check = order[held:], order[:held]

        def validate() -> float:
            same = torch.Generator().manual_seed(seed)  # a random defence must not choose among epochs
            seen = view.guard(clean[check], same, images[check])
            return float(F.mse_loss(decoded(network.eval(), seen), view.own[check]))

        def sent(rows: Tensor) -> Tensor:
            return view.guard(clean[rows], generator, images[rows])

        chosen, error = train(network, sent, view.own, fit, effort.steps(EPOCHS), generator, validate)
        network.load_state_dict(chosen)
        notes = {"validation_mse": error, "width": float(width), "macs": macs(network, clean.shape[1:])}
        return Guess(decoded(network.eval(), view.smashed), notes)


def computed(view: View) -> Tensor:
    """Smashed data of the adversary's own images, undefended."""
    with torch.no_grad():
        return torch.cat([view.compute(part) for part in view.own.split(256)])


def train(
    network: nn.Module,
    draw: Callable[[Tensor], Tensor],
    targets: Tensor,
    rows: Tensor,
    epochs: int,
    generator: torch.Generator,
    validate: Callable[[], float],
) -> tuple[dict[str, Tensor], float]:
    """Train ``network`` from ``draw(rows)`` to ``targets[rows]``; the best state by ``validate``, and its error."""
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    best = copy.deepcopy(network.state_dict()), validate()
    for _ in range(epochs):
        network.train()
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(BATCH):
            optimiser.zero_grad()
            F.mse_loss(network(draw(batch)), targets[batch]).backward()
            optimiser.step()
        error = validate()
        if error < best[1]:
            best = copy.deepcopy(network.state_dict()), error
    return best


@torch.no_grad()
def decoded(network: nn.Module, smashed: Tensor) -> Tensor:
    """Pixels of smashed data ``[n, c, h, w]``, in the network's mode."""
    return torch.cat([network(part) for part in smashed.split(256)])


@cache
def equal_width(family: str, blocks: int, smashed_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> int:
    """The width at which a decoder's cost is nearest to `MACS_PER_PIXEL` for each pixel."""
    wanted = MACS_PER_PIXEL * image_shape[1] * image_shape[2]

    def cost(width: int) -> float:
        return macs(decoder(f"{family}_normN{blocks}C{width}", smashed_shape, image_shape), smashed_shape)

    one, two, three = (cost(4 * times) for times in (1, 2, 3))  # a quadratic in the width / 4, exactly
    square = (three - 2 * two + one) / 2
    slope = two - one - 3 * square
    rest = one - slope - square - wanted
    fours = (math.sqrt(max(slope**2 - 4 * square * rest, 0.0)) - slope) / (2 * square)
    return 4 * max(1, round(fours))
