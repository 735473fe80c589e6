"""Who holds what, on one rank; tests/mpi moves clients between ranks, test_against_oracle checks the numbers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.config import parse
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.stacked import StackedModel


class Noise:
    """A feed of random images."""

    def draw(self, clients, epoch, step):
        generator = torch.Generator().manual_seed(1000 * epoch + step)
        return tuple(torch.randn(len(clients), 2, 1, 5, 5, generator=generator) for _ in range(2))


def population(aligned=("online",), **client):
    config = parse({"epochs": 4, "client": {"count": 6, "batch_size": 2, **client}, "compute": {"block_size": 2}}, "x")
    torch.manual_seed(0)
    module = nn.Conv2d(1, 4, 3)
    model = StackedModel(module, Engine("fp32", "stacked"))
    cluster = Cluster()
    initial = model.flat(module)
    exchange, meter = Exchange(cluster), Meter(1, 1)
    states = {"online": initial, "momentum": initial.clone(), "velocity": torch.zeros_like(initial)}
    return Population(config, model, states, aligned, Noise(), cluster, exchange, meter), initial.clone()


def step(clients, epoch=0, number=0):
    clients.update_momentum()
    query, _ = clients.forward(epoch, number)
    clients.backward([torch.ones_like(part) for part in query], epoch)


@pytest.mark.parametrize(
    ("aligned", "client", "private"),
    [
        (("online",), {}, ("momentum", "velocity")),
        (("online", "momentum"), {}, ("velocity",)),
        (("online",), {"velocity_at_sync": "reset"}, ("momentum",)),
        (("online", "momentum"), {"velocity_at_sync": "averaged"}, ()),
        (("online",), {"frozen": True}, ()),
    ],
)
def test_what_is_private(aligned, client, private):
    assert population(aligned, **client)[0].private == private


def test_private_state_waits_for_the_client_and_is_nobody_elses():
    clients, initial = population()
    clients.enter(np.array([1, 2, 5]))
    assert clients.lanes == [2, 1]
    for number in range(2):
        step(clients, 0, number)
    own = {int(c): b.state["momentum"][lane].clone() for b in clients.blocks for lane, c in enumerate(b.clients)}
    mean = torch.full_like(initial, 0.25)
    clients.load("online", mean)
    clients.leave()
    assert sorted(int(client) for client, _ in clients.digests()) == [1, 2, 5]

    clients.enter(np.array([0, 2, 3]))
    lanes = {int(c): (block, lane) for block in clients.blocks for lane, c in enumerate(block.clients)}
    states = {c: {k: v[lane] for k, v in block.state.items()} for c, (block, lane) in lanes.items()}
    assert all(torch.equal(state["online"], mean) for state in states.values()), "unselected clients get the mean too"
    assert torch.equal(states[2]["momentum"], own[2])
    assert states[2]["velocity"].any()
    for newcomer in (0, 3):
        assert torch.equal(states[newcomer]["momentum"], initial)
        assert not states[newcomer]["velocity"].any()


def test_published_rates_follow_each_clients_own_steps():
    clients, _ = population(schedule_step="published", lr=0.06)
    everyone = np.arange(6)
    clients.enter(np.array([0, 3]))
    for number in range(4):
        step(clients, 0, number)
    assert clients.rates == pytest.approx([0.03 * (1 + math.cos(3 * math.pi / 4))] * 2), "those of the step just made"
    clients.leave()
    clients.enter(everyone)
    step(clients, 1)
    assert clients.rates[[0, 3]] == pytest.approx([0.0, 0.0], abs=1e-12)  # cosine at step 4 of 4
    assert clients.rates[[1, 2, 4, 5]] == pytest.approx([0.06] * 4)


def test_rates_by_epoch_and_of_frozen_clients():
    clients, _ = population(lr=0.06)
    clients.enter(np.arange(6))
    step(clients, 2)
    assert clients.rates == pytest.approx([0.03] * 6)
    assert not population(frozen=True)[0].rates.any()
