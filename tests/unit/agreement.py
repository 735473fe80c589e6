"""How a run is held against its slow oracle (tests/reference): the experiment, what is watched, what agreement is."""

from __future__ import annotations

import numpy as np
import torch

from mocosfl_mpi import parts, results
from mocosfl_mpi.algorithms import network as build_network
from mocosfl_mpi.clients.participation import pool as draw_pool
from mocosfl_mpi.clients.reliability import Reliability
from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.cost.flops import Costs, SegmentCost
from mocosfl_mpi.cost.memory import ClientMemory
from mocosfl_mpi.networks import BLOCKS, STAGES
from mocosfl_mpi.privacy.resistance import attacker
from mocosfl_mpi.record.schema import MEMORY
from mocosfl_mpi.saving import Trip
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.split.engine import MASTERS
from mocosfl_mpi.streams import Streams
from tests.reference.resistance_oracle import Opponent

TOLERANCE = 1e-10
BASE = {
    "seed": 8,
    "epochs": 2,
    "steps_per_epoch": 4,
    "data": {"train_images": 60, "test_images": 20},
    "partition": {"kind": "iid"},
    "views": {"size": 16},
    "model": {"width": 4, "cut_layer": 2, "key_dim": 8},
    "contrast": {"memory_length": 20, "momentum": 0.9},
    "server": {"lr": 0.1, "weight_decay": 0.01},
    "client": {"count": 4, "batch_size": 2, "lr": 0.3, "weight_decay": 0.01},
    "federation": {"sync_freq": 2},
    "evaluation": {"every": 0, "neighbours": 5, "linear_probe": False},
    "compute": {"precision": "fp64", "backend": "stacked", "server_threads": 1},
}
"""Two epochs of four steps with a sync every two; a big client rate makes drift visible."""
DRIFTS = ("online_mean", "online_momentum", "momentum_mean", "online_momentum_distance", "momentum_spread")


def quicken(monkeypatch):
    """Costs are the matter of other tests, and measuring a network takes longer than training it here."""
    nothing = Costs(SegmentCost(2, 2, 2, 2), SegmentCost(2, 2, 2, 2))
    monkeypatch.setattr(parts, "measure", lambda *_: nothing)
    monkeypatch.setattr(results, "measure", lambda *_: nothing)
    monkeypatch.setattr(results.memory, "measure", lambda *_, **__: ClientMemory(*[1] * len(MEMORY)))
    for name in ("resnet18", "resnet50"):
        monkeypatch.setitem(STAGES, name, (1, 1, 1, 1))  # a stem and four blocks do
    monkeypatch.setitem(BLOCKS, "vit", 2)
    torch.set_num_threads(1)


def configuration(settings):
    """The experiment, with what ``settings`` make of it."""
    return parse(apply_settings(BASE, settings), "test")


class Watched:
    """A simulation that has been trained, with the losses and drifts it reported."""

    def __init__(self, config, out):
        self.sim = Simulation.begin(config, Conduct("test", out, quiet=True))
        self.losses, self.accuracies, self.drifts = [], [], []
        step, synchronised = self.sim.chronicle.step, self.sim.chronicle.synchronised

        def see_step(delivery, report, rates):
            self.losses.append(report.loss)
            self.accuracies.append(report.accuracy)
            step(delivery, report, rates)

        def see_drift(epoch, drift, present):
            self.drifts.append(drift)
            synchronised(epoch, drift, present)

        memory = getattr(self.sim.main_server, "memory", None)
        self.initial_memory = [] if memory is None else list(memory.keys.clone())
        conclude, self.states = self.sim.saving.conclude, ""

        def see_state(epoch, loss):
            self.states += self.sim.saving._state
            return conclude(epoch, loss)

        self.sim.saving.conclude = see_state
        self.sim.chronicle.step, self.sim.chronicle.synchronised = see_step, see_drift
        with self.sim.speaker:
            list(self.sim.train())

    def client(self, client, state):
        """``[P]``: a client's state, its own where it has one, else the common one."""
        population = self.sim.clients
        parked = population._parked.get(client)
        states = population._states(np.array([client]))
        if parked is not None:
            population._parked[client] = parked
        return states[state][0]


def network_of(config, sim):
    """The untrained network of a run, which shares no weight with it."""
    channels, size, dtype = sim.problem.pixels.shape[1], config.views.size, MASTERS[config.compute.precision]
    return build_network(config, channels, size, sim.problem.classes, Streams(config.seed), dtype)


def batches_of(sim):
    """What a client gets in a step: (epoch, step, client) to two views, or to images and labels."""
    feed = sim.clients._feed

    def batch(epoch, step, client):
        first, second = feed.draw(np.array([client]), epoch, step)
        return first[0], second[0]

    return batch


def happenings(config, sim):
    """What both sides are told: the pools, image counts, steps, and what fails."""
    streams = Streams(config.seed)
    reliability = Reliability(config, streams)

    def pool(epoch):
        return reliability.survivors(epoch, draw_pool(config, streams, epoch, sim.problem.images)).tolist()

    def arrives(epoch, step, client):
        delivery = reliability.delivery(Trip(epoch, step), np.array([client]))
        return bool(delivery.query[0]), bool(delivery.key[0]), bool(delivery.gradient[0])

    def present(epoch, step, pool):
        return reliability.present(epoch, step, np.array(pool)).tolist()

    return pool, sim.problem.images.tolist(), sim.steps, arrives, present


def same(found, expected, what):
    """Refuse numbers that do not agree to ``TOLERANCE``, each and as a whole."""
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    assert found.shape == expected.shape, what
    difference = (found - expected).abs().max().item()
    assert difference <= TOLERANCE * max(1.0, expected.abs().max().item()), f"{what}: {difference}"
    if expected.norm() > 1e-6:  # a bias before BatchNorm has no gradient but rounding
        assert ((found - expected).norm() / expected.norm()).item() <= TOLERANCE, f"{what} (relative)"


def same_drifts(found, expected):
    """Refuse other distances at synchronisations than the oracle's, or fewer than two synchronisations."""
    assert len(found) == len(expected) >= 2
    for drift, wanted in zip(found, expected, strict=True):
        for name in DRIFTS:
            # Clients with fewer layers than others have NaN for those that they have not.
            np.testing.assert_allclose(
                getattr(drift, name), getattr(wanted, name), rtol=0, atol=TOLERANCE, err_msg=name
            )


def flat(weights):
    """``[P]``: named tensors as one vector."""
    return torch.cat([value.reshape(-1) for value in weights.values()])


RESISTING = ["defence.resistance=2.0", "defence.resistance_ssim=0.0", "defence.resistance_decoder=conv_normN0C4"]


def opponents(config, sim, network):
    """The attackers of all clients, where they have some."""
    if not config.resists:
        return ()
    decoder = attacker(config, network, Streams(config.seed), torch.float64)
    mean, std = (torch.tensor(values)[:, None, None].double() for values in (sim.problem.mean, sim.problem.std))
    found = [Opponent(decoder, config.defence, mean, std) for _ in range(config.client.count)]
    sim.opponents = found
    return found


def same_attackers(run):
    """Clients' attackers are those of the oracle; similarity has been on both sides of a hinge that is there."""
    scores, target = [], run.sim.config.defence.resistance_ssim
    for client, opponent in enumerate(run.sim.opponents):
        own = sum(p.numel() for p in opponent.network.parameters())
        found = run.client(client, "attacker")
        same(torch.cat([found[:own], found[3 * own : -4]]), opponent.weights(), f"client {client} attacker")
        assert found[-4] == opponent.batches
        scores += opponent.scores
    assert min(scores) < target < max(scores) or target == 0 < max(scores)
