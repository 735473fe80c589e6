"""Who holds what, on one rank; tests/mpi moves clients between ranks, test_against_oracle checks the numbers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mocosfl_mpi.clients.population import Keep, Population
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


def population(private=("momentum", "velocity"), **client):
    config = parse({"epochs": 4, "client": {"count": 6, "batch_size": 2, **client}, "compute": {"block_size": 2}}, "x")
    torch.manual_seed(0)
    module = nn.Conv2d(1, 4, 3)
    model = StackedModel(module, Engine("fp32", "stacked"))
    cluster = Cluster()
    initial = model.flat(module)
    kept = [keep if isinstance(keep, Keep) else Keep(keep, ((0, len(initial)),)) for keep in private]
    exchange, meter = Exchange(cluster), Meter(1, 1)
    states = {"online": initial, "momentum": initial.clone(), "velocity": torch.zeros_like(initial)}
    return Population(config, model, states, kept, Noise(), cluster, exchange, meter), initial.clone()


def step(clients, epoch=0, number=0, answered=None):
    clients.update_momentum()
    query = [sent for sent, _ in clients.forward(epoch, number)]
    everybody = np.ones(sum(clients.lanes), dtype=bool)
    gradients = [torch.ones_like(part) for part in query]
    clients.backward(gradients, epoch, everybody if answered is None else answered, everybody)


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


def lane(clients, client, state):
    return next(
        block.state[state][number]
        for block in clients.blocks
        for number, found in enumerate(block.clients)
        if found == client
    )


def test_columns_of_a_state_are_kept_and_the_others_shared():
    clients, initial = population((Keep("online", ((4, 10), (12, len(initial_weights())))), "velocity"))
    clients.enter(np.array([1, 2]))
    step(clients)
    own = lane(clients, 1, "online").clone()
    mean = torch.full_like(initial, 0.25)
    clients.load("online", mean, ((0, 4), (10, 12)))
    clients.averaged(mean)
    clients.leave()
    clients.enter(np.array([1, 3]))
    shared = torch.zeros(len(initial), dtype=torch.bool)
    shared[0:4] = shared[10:12] = True
    for client, expected in ((1, own), (3, initial)):
        found = lane(clients, client, "online")
        assert torch.equal(found[shared], mean[shared])
        assert torch.equal(found[~shared], expected[~shared])
    assert not torch.equal(own[~shared], initial[~shared])
    assert torch.equal(clients.average, mean), "what is evaluated"


def initial_weights():
    return population()[1]


def test_what_lapses_is_lost_to_clients_that_were_away_when_it_was_made_common():
    whole = ((0, len(initial_weights())),)
    clients, initial = population((Keep("momentum", whole, lapses=True), Keep("residual", whole)))
    clients.enter(np.array([1, 2]))
    for block in clients.blocks:
        block.state["momentum"] += 1.0
        block.state["residual"] += 2.0
    clients.leave()
    clients.enter(np.array([2, 3]))
    assert torch.equal(lane(clients, 2, "momentum"), initial + 1.0), "nothing was made common since then"
    assert torch.equal(lane(clients, 3, "momentum"), initial)
    assert not lane(clients, 3, "residual").any()
    common = torch.full_like(initial, 0.5)
    clients.load("momentum", common, whole)
    clients.leave()
    clients.enter(np.array([1, 2]))
    assert torch.equal(lane(clients, 1, "momentum"), common)
    assert torch.equal(lane(clients, 2, "momentum"), common)
    assert torch.equal(lane(clients, 1, "residual"), torch.full_like(initial, 2.0)), "an error waits until it is sent"


def test_a_restored_population_knows_what_has_lapsed_and_what_is_kept():
    whole = ((0, len(initial_weights())),)
    kept = (Keep("online", ((0, 5),)), Keep("momentum", whole, lapses=True), Keep("residual", whole))
    clients, initial = population(kept)
    clients.enter(np.array([1, 2]))
    for block in clients.blocks:
        for state in ("online", "momentum", "residual"):
            block.state[state] += 1.0
    clients.leave()
    clients.enter(np.array([2, 3]))
    clients.load("momentum", torch.full_like(initial, 0.5), whole)
    clients.averaged(torch.full_like(initial, 0.75))
    clients.shared["server_residual"] = torch.full_like(initial, 0.1)
    clients.leave()
    clients.enter(np.array([3, 4]))
    for block in clients.blocks:
        block.state["momentum"] += 2.0
    clients.leave()

    saved = dict(clients.state())
    again, _ = population(kept)
    again.restore(saved["shared"], [saved[name] for name in saved if name.startswith("parked")])
    assert again.digest_shared() == clients.digest_shared()
    assert sorted(again.digests()) == sorted(clients.digests())
    assert torch.equal(again.average, clients.average)
    for found in (clients, again):
        found.enter(np.arange(1, 6))
    for client in range(1, 6):
        for state in ("online", "momentum", "residual"):
            assert torch.equal(lane(again, client, state), lane(clients, client, state)), (client, state)
    assert torch.equal(lane(again, 1, "momentum"), torch.full_like(initial, 0.5)), "lapsed"
    assert torch.equal(lane(again, 3, "momentum"), torch.full_like(initial, 2.5)), "kept"


def test_what_is_shared_goes_to_those_who_come_and_leaves_those_at_work_alone():
    whole = ((0, len(initial_weights())),)
    clients, initial = population((Keep("online", whole, lapses=True), "velocity"))
    assert "average" not in clients.shared, "the common model is the mean"
    clients.enter(np.array([1, 2]))
    step(clients)
    own = {client: lane(clients, client, "online").clone() for client in (1, 2)}
    clients.leave()
    assert clients.independent.tolist() == [1, 2]
    assert torch.equal(clients.own(2), own[2])
    clients.enter(np.array([2, 3]))
    mean = torch.full_like(initial, 0.5)
    clients.share("online", mean)
    assert torch.equal(lane(clients, 2, "online"), own[2])
    clients.leave()
    assert clients.independent.tolist() == [2, 3], "client 1 was away"
    assert torch.equal(clients.average, mean)
    assert torch.equal(clients.own(2), own[2])
    clients.enter(np.array([0, 1, 2]))
    for client, expected in ((0, mean), (1, mean), (2, own[2])):
        assert torch.equal(lane(clients, client, "online"), expected), client


def test_independent_clients_have_what_they_keep_within_what_is_common():
    clients, initial = population((Keep("online", ((4, 10),)), "momentum"))
    assert clients.independent.tolist() == []
    clients.enter(np.array([3, 5]))
    step(clients)
    own = lane(clients, 5, "online").clone()
    mean = torch.full_like(initial, 0.25)
    clients.load("online", mean, ((0, 4), (10, len(initial))))
    clients.leave()
    assert clients.independent.tolist() == [3, 5]
    expected = mean.clone()
    expected[4:10] = own[4:10]
    assert torch.equal(clients.own(5), expected)
    assert population(("momentum",))[0].independent.tolist() == []


def test_who_misses_a_synchronisation_keeps_its_own_until_others_have_one_without_it():
    whole = ((0, len(initial_weights())),)
    clients, initial = population((Keep("online", whole, lapses=True), Keep("momentum", whole, lapses=True)))
    clients.enter(np.array([1, 2, 4]))
    for block in clients.blocks:
        for number, client in enumerate(block.clients):
            block.state["online"][number] += int(client)
            block.state["momentum"][number] -= int(client)
    mean = torch.full_like(initial, 0.5)
    clients.reach(np.array([True, False, False]))
    clients.load("online", mean)
    assert torch.equal(lane(clients, 1, "online"), mean)
    assert torch.equal(lane(clients, 2, "online"), initial + 2)
    clients.leave()

    clients.enter(np.array([0, 1, 2]))
    assert torch.equal(lane(clients, 0, "online"), mean), "a newcomer fetches it"
    assert torch.equal(lane(clients, 2, "online"), initial + 2), "who was in the pool goes on with its own"
    clients.reach(np.array([True, True, True]))
    clients.load("online", mean + 1)
    assert torch.equal(lane(clients, 2, "online"), mean + 1)
    clients.leave()

    clients.enter(np.array([2, 4]))
    assert torch.equal(lane(clients, 4, "online"), mean + 1), "who was away has lost its own"
    assert torch.equal(lane(clients, 4, "momentum"), initial - 4), "but not what nobody made common"
    assert torch.equal(lane(clients, 2, "momentum"), initial - 2)


def test_steps_of_who_gets_no_answer_are_not_counted():
    clients, _ = population(schedule_step="published", lr=0.06)
    clients.enter(np.array([0, 3, 4]))
    for number in range(4):
        step(clients, 0, number, answered=np.array([True, False, number == 0]))
    step(clients, 0, 4)
    assert clients.rates == pytest.approx([0.0, 0.06, 0.03 * (1 + math.cos(math.pi / 4))], abs=1e-12)


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
