"""A client's audit of a first part that a server has shipped: does it pass on what its own images look like?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Effort
from mocosfl_mpi.attacks.reconstruction.ridge import Ridge
from mocosfl_mpi.attacks.view import Guard, View, unguarded
from mocosfl_mpi.errors import BadInput

FEWEST_IMAGES = 20
THRESHOLD = 0.8


@dataclass(frozen=True)
class Verdict:
    """What an audit found."""

    accepted: bool
    mse: float
    """Of the ridge decoder, on images that it was not fitted on."""
    ssim: float
    floor: float
    """MSE of the constant mean colour: a guesser who sees nothing."""
    share: float
    """``mse / floor``: what of the images' variance the decoder does not get; 1 = nothing leaks that it can find."""
    threshold: float
    """Smallest share that is accepted."""
    reason: str
    """In words."""


@torch.no_grad()
def acceptance(
    bottom: nn.Module,
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    threshold: float = THRESHOLD,
    guard: Guard = unguarded,
    seed: int = 0,
) -> Verdict:
    """Whether a client should take ``bottom`` from its server, judged on its own ``images`` ``[n, C, H, W]`` in [0, 1].

    Half of them fit a linear decoder in closed form, the others are decoded. ``guard``: what the client would do to its
    smashed data. An audit by the cheapest attacker there is: who fails leaks; who passes may leak to a stronger one,
    and may well be linkable (`inference.linkage`).

    Raises
    ------
    BadInput
        Fewer than 20 images, or a threshold outside of (0, 1].
    """
    if len(images) < FEWEST_IMAGES:
        raise BadInput(
            f"an audit with {len(images)} images says nothing; give at least {FEWEST_IMAGES} of the client's own"
        )
    if not 0.0 < threshold <= 1.0:
        raise BadInput(f"threshold = {threshold}: a share of the floor, above 0 and at most 1; leave {THRESHOLD}")
    generator = torch.Generator().manual_seed(seed)
    fit, held = images[torch.randperm(len(images), generator=generator)].chunk(2)
    channels, height, width = images.shape[1:]
    bare = View("client", tuple(mean), tuple(std), (channels, height, width), fit, weights=bottom.eval(), guard=guard)
    sent = torch.cat([bare.sent(part, generator) for part in held.split(256)])
    view = View(
        "client", bare.mean, bare.std, bare.image_shape, fit, smashed=sent, weights=bottom, guard=guard
    )  # fmt: skip
    guess = Ridge().run(view, seed, Effort())
    scores = metrics.score(guess.values, held)
    floor = float(metrics.mse(metrics.constant_mean(fit, len(held)), held).mean())
    share = scores["mse"] / floor if floor > 0.0 else 1.0
    accepted = share >= threshold
    told = f"a linear decoder gets {100.0 * max(0.0, 1.0 - share):.0f} % of the variance of images it has not seen"
    line = f"at most {100.0 * (1.0 - threshold):.0f} % is accepted"
    return Verdict(accepted, scores["mse"], scores["ssim"], floor, share, threshold, f"{told}; {line}")
