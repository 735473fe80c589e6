"""Feature-space hijacking: a main server that teaches a client to send what it can decode."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.decoders import decoder, macs
from mocosfl_mpi.attacks.view import Sight, View
from mocosfl_mpi.split.layers import seeded

ITERATIONS = 10_000
PACE, PILOT, CRITIC = 1e-3, 2e-4, 2e-4
"""How far a gradient leads the client in a step, and Adam's learning rates, in 10,000 iterations. In fewer they are
larger by as much, up to the limits below."""
MOST_PACE, MOST_PILOT, MOST_CRITIC = 6e-3, 1e-3, 1e-3
PENALTY, PUBLISHED_PENALTY = 10.0, 500.0
"""Weights of the critic's gradient penalty: that of Gulrajani et al., and that of the published attack, whose clients
have Adam and whose steps are ten thousand. Against a client with SGD, in fewer steps, that leads nowhere: the critic
is held too tightly to follow (a slow test shows both)."""


class Hijacking:
    """FSHA: a critic drives the client's smashed data to look like a pilot's, whose inverse the attacker trains.

    The published clients have Adam; ours have SGD, with a rate that the server knows, and it scales its gradients so.

    Frozen clients cannot be hijacked: what they send stays what it was, and the inverse was not trained on that.
    """

    kind: ClassVar[Kind] = "reconstruction"
    needs: ClassVar[frozenset[Sight]] = frozenset({"architecture", "steering"})
    source: ClassVar[str] = (
        "Pasquini, Ateniese & Bernaschi, Unleashing the Tiger: Inference Attacks on Split Learning, CCS 2021"
    )

    def __init__(
        self,
        critic_width: int = 32,
        network: str = "conv_normN0C32",
        penalty: float = PENALTY,
        name: str = "fsha",
    ) -> None:
        self.penalty = penalty
        self.name = name
        self.critic_width = critic_width
        self.network = network

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Pixels of the images that the client is watched with, after its training was hijacked."""
        assert view.steering is not None
        assert view.architecture is not None
        generator = torch.Generator().manual_seed(seed)
        steps = effort.steps(ITERATIONS)
        faster = ITERATIONS / steps
        shape = tuple(view.steering.look().shape[1:])
        with seeded(seed):
            pilot = view.architecture(seed)
            inverse = decoder(self.network, shape, view.image_shape, "group")
            judge = critic(shape, self.critic_width)
        pair = torch.optim.Adam([*pilot.parameters(), *inverse.parameters()], min(PILOT * faster, MOST_PILOT))
        judging = torch.optim.Adam(judge.parameters(), min(CRITIC * faster, MOST_CRITIC))
        pace = min(PACE * faster, MOST_PACE) / max(view.steering.pace, 1e-12)
        error = torch.tensor(torch.nan)
        for _ in range(steps):
            private = view.steering.send()
            own = view.own[torch.randint(len(view.own), (len(private),), generator=generator)]
            view.steering.answer(pace * steered(judge, private))
            images = view.normalise(own)
            public = view.guard(pilot(images), generator, images)
            error = F.mse_loss(inverse(public), own)
            pair.zero_grad()
            error.backward()
            pair.step()
            public = public.detach()
            loss = (
                judge(private).mean() - judge(public).mean() + self.penalty * slope(judge, private, public, generator)
            )
            judging.zero_grad()
            loss.backward()
            judging.step()
        with torch.no_grad():
            guess = inverse.eval()(view.steering.look())
        return Guess(guess, {"own_mse": error.item(), "macs": macs(inverse, shape)})


def steered(judge: nn.Module, private: Tensor) -> Tensor:
    """The gradient that leads a client's smashed data to where the critic takes them for the pilot's."""
    at = private.detach().requires_grad_()
    gradient: Tensor = torch.autograd.grad(-judge(at).mean(), at)[0]
    return gradient


def slope(judge: nn.Module, private: Tensor, public: Tensor, generator: torch.Generator) -> Tensor:
    """Gradient penalty of a Wasserstein critic (Gulrajani et al. 2017), between what is told apart."""
    share = torch.rand(len(private), 1, 1, 1, generator=generator)
    between = (private + share * (public - private)).requires_grad_()
    gradient: Tensor = torch.autograd.grad(judge(between).sum(), between, create_graph=True)[0]
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (norms - 1.0).square().mean()


def critic(smashed_shape: tuple[int, ...], wide: int) -> nn.Sequential:
    """Three convolutions and a linear layer: maps ``[n, *smashed_shape]`` to a number each ``[n, 1]``."""
    channels, height, width = smashed_shape
    layers: list[nn.Module] = []
    for _ in range(3):
        stride = 2 if min(height, width) > 4 else 1
        layers += [nn.Conv2d(channels, wide, 3, stride, padding=1), nn.LeakyReLU(0.2)]
        channels, height, width = wide, -(-height // stride), -(-width // stride)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, 1))
