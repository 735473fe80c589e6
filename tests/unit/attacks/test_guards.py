"""What a run's clients do to smashed data, its attacker meets."""

import pytest
import torch

from mocosfl_mpi.attacks.guards import guard_of
from mocosfl_mpi.attacks.scenes.reconstruction import Reconstruction
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.privacy import resistance
from tests.unit.attacks.victims import run, victim

NOISY = ("defence.clip=2", "defence.noise=gaussian", "defence.noise_scale=0.3")
AGAINST = (
    "defence.adversarial=0.2",
    "defence.resistance=1",
    "defence.resistance_decoder=conv_normN0C4",
    "client.batch_size=4",
)


def sent(under_attack, guard, seed=0):
    view = Reconstruction(under_attack, "server", count=6, own=8).view
    images = view.normalise(view.own)
    clean = view.compute(view.own)
    return clean, guard(clean, torch.Generator().manual_seed(seed), images)


def test_nothing_is_done_where_nothing_is_asked_for():
    assert guard_of(victim(), 0) is None
    assert guard_of(victim("defence.nopeek=1", "client.batch_size=4"), 0) is None, "a term changes nothing that is sent"


def test_samples_are_clipped_and_every_send_is_drawn_anew():
    guard = guard_of(victim(*NOISY), 0)
    clean, first = sent(victim(*NOISY), guard)
    assert torch.equal(first, sent(victim(*NOISY), guard)[1])
    other = sent(victim(*NOISY), guard, seed=1)[1]
    assert (first - other).std() == pytest.approx(0.3 * 2**0.5, rel=0.1)
    mean = torch.stack([sent(victim(*NOISY), guard, seed)[1] for seed in range(40)]).mean(dim=0)
    bounded = clean * (2 / clean.flatten(1).norm(dim=1)).clamp(max=1)[:, None, None, None]
    assert (mean - bounded).std() == pytest.approx(0.3 / 40**0.5, rel=0.15)


def test_gradients_pass_straight_through():
    guard = guard_of(victim(*NOISY), 0)
    smashed = torch.randn(3, 4, 5, 5, requires_grad=True)
    guard(smashed, torch.Generator().manual_seed(0), torch.zeros(3, 1, 16, 16)).sum().backward()
    assert torch.equal(smashed.grad, torch.ones_like(smashed))


def test_the_victim_s_own_decoder_is_what_adversarial_noise_goes_against():
    under_attack = victim(*AGAINST)
    clean, first = sent(under_attack, guard_of(under_attack, 0))
    torch.testing.assert_close(
        (first - clean).abs()[first != clean], torch.tensor(0.2).expand(int((first != clean).sum()))
    )
    _, other = sent(under_attack, guard_of(under_attack, 1))
    assert not torch.equal(first, other), "another client, another decoder"
    fresh = Victim(run(*AGAINST), None, trained=False)
    assert fresh.opponent(0) is None
    assert under_attack.opponent(0).shape == under_attack.opponent(1).shape
    assert not torch.equal(under_attack.opponent(0), under_attack.opponent(1))
    assert resistance.STATE in under_attack.saved.arrays("shared")
    assert not torch.equal(sent(fresh, guard_of(fresh, 0))[0], clean)
