"""Terms at the cut: what they add, what they keep, and that without them nothing changes."""

import numpy as np
import pytest
import torch
from torch import nn

from mocosfl_mpi.clients.keep import Keep
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.clients.terms import CutTerm
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.config import parse
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.stacked import StackedModel
from tests.unit.clients.test_population import Noise


class Pull(CutTerm):
    """Adds the smashed data themselves; counts the steps of an epoch, and all steps."""

    recorded = ("resistance/steps",)

    @property
    def initial(self):
        return {"pulls": torch.zeros(2)}

    def begin_epoch(self, block):
        block.state["pulls"][:, 0] = 0

    def gradient(self, block, images, smashed):
        assert images.shape[:2] == smashed.shape[:2]
        block.state["pulls"] += 1
        return smashed

    def readings(self, block):
        return {"resistance/steps": block.state["pulls"][:, 0]}


def population(terms, **client):
    config = parse({"epochs": 4, "client": {"count": 6, "batch_size": 2, **client}, "compute": {"block_size": 2}}, "x")
    torch.manual_seed(0)
    module = nn.Conv2d(1, 4, 3)
    model = StackedModel(module, Engine("fp32", "stacked"))
    cluster = Cluster()
    flat = model.flat(module)
    widths = {"online": len(flat), "momentum": len(flat), "velocity": len(flat)}
    widths |= {name: len(value) for term in terms for name, value in term.initial.items()}
    kept = [Keep(state, ((0, width),)) for state, width in widths.items()]
    states = {"online": flat, "momentum": flat.clone(), "velocity": torch.zeros_like(flat)}
    return Population(config, model, states, kept, Noise(), cluster, Exchange(cluster), Meter(1, 1), terms=terms)


def step(clients, answered, number=0, pull=0.0):
    query = [sent for sent, _ in clients.forward(0, number)]
    clients.backward(
        [torch.ones_like(part) + pull * part for part in query],
        0,
        np.array(answered),
        np.ones(len(answered), dtype=bool),
    )


@pytest.mark.parametrize(("scale", "share"), [("own_rows", 1.0), ("published", 1 / 3)])
def test_the_gradient_is_added_on_the_scale_of_the_servers(scale, share):
    """The server's gradient is of the mean over the pool, or over a client's own rows: so is what is added."""
    mine, other = population([Pull()], gradient_scale=scale), population([])
    for clients in (mine, other):
        clients.enter(np.array([0, 1, 4]))
    step(mine, [True, True, True])
    step(other, [True, True, True], pull=share)
    for block, expected in zip(mine.blocks, other.blocks, strict=True):
        torch.testing.assert_close(block.state["online"], expected.state["online"])


def test_a_client_without_its_gradient_does_nothing():
    clients = population([Pull()])
    clients.enter(np.array([0, 1, 4]))
    step(clients, [True, False, True])
    step(clients, [True, True, False], 1)
    told = clients.leave()
    assert told["resistance/steps"].tolist() == [2, 1, 1]


def test_states_of_terms_are_the_clients_own_and_are_saved():
    clients = population([Pull()])
    for epoch, pool in enumerate(([0, 1, 4], [1, 2, 3])):
        clients.enter(np.array(pool))
        for number in range(2 + epoch):
            step(clients, [True] * 3, number)
        told = clients.leave()
        assert told["resistance/steps"].tolist() == [2 + epoch] * 3
    again = population([Pull()])
    saved = dict(clients.state())
    shared = saved.pop("shared")
    again.restore(shared, list(saved.values()))
    assert sorted(again.digests()) == sorted(clients.digests())
    assert again.digest_shared() == clients.digest_shared()
    again.enter(np.array([0, 1, 5]))
    assert [row[1].item() for block in again.blocks for row in block.state["pulls"]] == [2, 5, 0]


def test_a_pool_at_work_is_saved_with_them():
    clients, again = population([Pull()]), population([Pull()])
    clients.enter(np.array([0, 1, 4]))
    step(clients, [True, False, True])
    saved = dict(clients.state())
    again.restore(saved.pop("shared"), [])
    again.enter(np.array([0, 1, 4]))
    again.restore_pool(list(saved.values()))
    for one, other in zip(clients.blocks, again.blocks, strict=True):
        assert {name: value.tolist() for name, value in one.state.items()} == {
            name: value.tolist() for name, value in other.state.items()
        }
