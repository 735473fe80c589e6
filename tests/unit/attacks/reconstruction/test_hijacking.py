"""Grey shapes, two convolutions, and a server that steers them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Effort
from mocosfl_mpi.attacks.reconstruction.hijacking import PUBLISHED_PENALTY, Hijacking
from mocosfl_mpi.attacks.steered import SteeredClient
from mocosfl_mpi.attacks.view import View
from mocosfl_mpi.split.layers import seeded


def shapes(count, seed, size=16):
    """Discs and squares of any grey on any darker grey ``[count, 1, size, size]``."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    at = (0.25 + 0.5 * torch.rand(count, 2, 1, 1, generator=g)) * size
    radius = (0.12 + 0.2 * torch.rand(count, 1, 1, generator=g)) * size
    dx, dy = (x - at[:, 0]).abs(), (y - at[:, 1]).abs()
    square = torch.rand(count, 1, 1, generator=g) < 0.5
    inside = torch.where(square, torch.maximum(dx, dy), torch.hypot(dx, dy)) < radius
    dark, light = 0.5 * torch.rand(2, count, 1, 1, generator=g)
    return torch.where(inside, 0.5 + light, dark)[:, None]


def layers(seed, channels):
    with seeded(seed):
        return nn.Sequential(nn.Conv2d(1, channels, 3, 2, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1))


def hijacked(attack, iterations, *, frozen, size=16, batch=16, channels=8, momentum=0.9):
    """Scores of what the attacker makes of a client's images, and the floors."""
    private, own = shapes(200, 1, size), shapes(1000, 2, size)
    bare = View("malicious_server", (0.5,), (0.5,), (1, size, size), own, architecture=lambda s: layers(s, channels))
    client = SteeredClient(
        layers(77, channels), bare.normalise(private), 64, batch=batch, lr=0.06, momentum=momentum, frozen=frozen
    )
    guess = attack.run(replace(bare, steering=client), 0, Effort(iterations / 10_000))
    return metrics.score(guess.values, private[:64]), metrics.floors(own, private[:64])


def test_the_way_to_a_hijacked_client():
    """Soon the pictures of a client that learns are better than those of one that does not."""
    attack = Hijacking(critic_width=8, network="conv_normN0C8")
    steered, _ = hijacked(attack, 250, frozen=False, size=8, channels=4)
    flat, floors = hijacked(attack, 250, frozen=True, size=8, channels=4)
    assert steered["mse"] < flat["mse"]
    assert flat["mse"] >= floors["constant_mean"]["mse"]


@pytest.mark.slow
def test_a_hijacked_client_sends_pictures_and_a_frozen_one_never():
    attack = Hijacking(critic_width=16, network="conv_normN0C16")
    steered, floors = hijacked(attack, 1500, frozen=False, batch=32, momentum=0.5)
    flat, _ = hijacked(attack, 1500, frozen=True, batch=32, momentum=0.5)
    assert steered["mse"] < 0.85 * floors["constant_mean"]["mse"]
    assert flat["mse"] >= floors["constant_mean"]["mse"]
    assert flat["ssim"] < 0.1
    assert steered["ssim"] > 0.3


def test_the_penalty_of_gulrajani_and_the_published_one_are_two_attacks():
    ours, published = (
        hijacked(Hijacking(4, "conv_normN0C4", **how), 30, frozen=False, size=8, channels=4)[0]["mse"]
        for how in ({}, {"penalty": PUBLISHED_PENALTY, "name": "fsha_published"})
    )
    assert ours != published


@pytest.mark.slow
def test_in_so_few_steps_the_published_penalty_leads_a_client_nowhere():
    """Reported of the published setting, whose clients have Adam and ten thousand steps."""
    attack = Hijacking(16, "conv_normN0C16", PUBLISHED_PENALTY)
    steered, floors = hijacked(attack, 1500, frozen=False, batch=32, momentum=0.5)
    assert steered["mse"] > floors["constant_mean"]["mse"]
