import torch
from torch import nn

from mocosfl_mpi.attacks.steered import SteeredClient
from mocosfl_mpi.split.layers import seeded


def model():
    with seeded(0):
        return nn.Conv2d(1, 2, 3, padding=1)


def images():
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_step_is_sgd_on_the_gradient_that_came_down():
    """All images are one batch, so the order in which they are drawn is the only thing to be undone."""
    client = SteeredClient(model(), images(), 2, batch=6, lr=0.1)
    own = model()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    sent = client.send()
    torch.testing.assert_close(sent, own(images()[order]))
    own(images()[order]).backward(torch.ones_like(sent))
    client.answer(torch.ones_like(sent))
    for mine, theirs in zip(own.parameters(), client.model.parameters(), strict=True):
        torch.testing.assert_close(mine - 0.1 * mine.grad, theirs)


def test_a_frozen_client_ignores_what_comes_down():
    client = SteeredClient(model(), images(), 2, batch=3, lr=0.1, momentum=0.9, weight_decay=0.1, frozen=True)
    before = client.look()
    for _ in range(5):
        client.answer(torch.full_like(client.send(), 100.0))
    assert torch.equal(client.look(), before)


def test_nothing_that_leaves_leads_back_to_pixels():
    client = SteeredClient(model(), images(), 2, batch=3, lr=0.1)
    assert not client.send().requires_grad
    assert not client.look().requires_grad
    assert client.look().shape == (2, 2, 8, 8)


def test_the_victim_keeps_its_weights():
    victim = model()
    client = SteeredClient(victim, images(), 2, batch=3, lr=0.1)
    client.answer(torch.ones_like(client.send()))
    assert torch.equal(victim.weight, model().weight)
    assert not torch.equal(client.model.weight, victim.weight)


def test_a_defence_is_on_the_way_up():
    client = SteeredClient(model(), images(), 2, batch=3, lr=0.1, guard=lambda z, g, x: 0.0 * z)
    assert not client.send().any()
    assert not client.look().any()
