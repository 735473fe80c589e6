"""Supervised federated and split learning, slow and obvious: one Python object per client, autograd end to end.

Written from the papers (McMahan et al. 2017, FedAvg; Thapa et al. 2022, SplitFed; Gupta & Raskar 2018, split learning),
not from the package: no exchange, no detached maps, torch's own SGD. From the package come the initial weights, the
batches, the settings, and the order in which SFL-V2 takes clients.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mocosfl_mpi.config import Config
from tests.reference.defences import Defend, defended, distance_correlation
from tests.reference.local_oracle import Client
from tests.reference.oracle import Drift, FedServer, Weights, average, rate, synchronise, velocities, weights_of
from tests.reference.resistance_oracle import Opponent

Batches = Callable[[int, int, int], tuple[Tensor, Tensor]]
"""(epoch, step, client) to the images ``[B, C, H, W]`` and labels ``[B]`` of that client's batch."""


class Server:
    """A network behind the cut and its optimiser."""

    def __init__(self, network: nn.Module, config: Config) -> None:
        self.network = copy.deepcopy(network).train()
        settings = config.server
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), lr=0.0, momentum=settings.momentum, weight_decay=settings.weight_decay
        )

    def velocity(self) -> Weights:
        return velocities(self.network, self.optimiser)


@dataclass
class Outcome:
    """All states after the last step."""

    clients: list[Client]
    servers: list[Server]
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    drifts: list[Drift] = field(default_factory=list)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the rows of -log( exp(z_y) / Σ exp(z_c) )."""
    terms = [-torch.log(torch.exp(z[y]) / torch.exp(z).sum()) for z, y in zip(logits, labels, strict=True)]
    return sum(terms) / len(terms)


def right(logits: Tensor, labels: Tensor) -> float:
    return sum(float(z.argmax() == y) for z, y in zip(logits, labels, strict=True)) / len(labels)


def learn(optimisers: Sequence[torch.optim.SGD], loss: Tensor) -> None:
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()


def average_servers(servers: Sequence[Server], shares: Sequence[float]) -> None:
    """Networks and velocities of SFL-V1's copies."""
    weights = average([weights_of(server.network) for server in servers], shares)
    velocity = average([server.velocity() for server in servers], shares)
    for server in servers:
        server.network.load_state_dict(weights)
        for name, parameter in server.network.named_parameters():
            server.optimiser.state[parameter]["momentum_buffer"] = velocity[name].clone()


def vertical(
    config: Config, outcome: Outcome, pieces: list[tuple[Tensor, Tensor]], defend: Callable[[int, Tensor], Tensor]
) -> tuple[float, float]:
    """Every client's map of its piece, put together as the pieces lie in the image: two halves, or four quadrants."""
    maps = [client.online(piece) for client, (piece, _) in zip(outcome.clients, pieces, strict=True)]
    peeks = [
        config.defence.nopeek * distance_correlation(piece, smashed)
        for smashed, (piece, _) in zip(maps, pieces, strict=True)
        if config.defence.nopeek
    ]
    maps = [defend(client, smashed) for client, smashed in enumerate(maps)]
    if len(maps) == 4:
        maps = [torch.cat([maps[0], maps[2]], dim=2), torch.cat([maps[1], maps[3]], dim=2)]
    logits, labels = outcome.servers[0].network(torch.cat(maps, dim=3)), pieces[0][1]
    loss = cross_entropy(logits, labels)
    learn([owner.optimiser for owner in (*outcome.clients, *outcome.servers)], loss + sum(peeks))
    return float(loss.detach()), right(logits, labels)


def hidden(defend: Defend, epoch: int, step: int, client: int, smashed: Tensor) -> Tensor:
    """What one client sends."""
    return defend(epoch, step, client, "query", smashed)


def run(
    config: Config,
    bottom: nn.Module,
    trunk: nn.Module | None,
    batches: Batches,
    pools: Callable[[int], Sequence[int]],
    images: Sequence[int],
    steps: int,
    order: Callable[[int, int], Sequence[int]],
    opponents: Sequence[Opponent] = (),
) -> Outcome:
    """Train for ``config.epochs`` epochs of ``steps`` steps; ``trunk``: what stands behind the cut, if there is one.

    ``order``: of so many clients, at a step of the run: who comes first. ``opponents``: of all clients, where they
    learn to resist.
    """
    outcome = Outcome([Client(bottom, config) for _ in range(config.client.count)], [])
    turns = config.method in ("split_vanilla", "split_u_shaped")
    if trunk is not None:
        copies = len(pools(0)) if config.method == "sfl_v1" else 1
        outcome.servers += [Server(trunk, config) for _ in range(copies)]
    fed_server, defend = FedServer(bottom), defended(config)
    for epoch in range(config.epochs):
        pool = list(pools(epoch))
        for step in range(steps):
            for i in pool:
                client = outcome.clients[i]
                t = client.steps if config.client.schedule_step == "published" else epoch
                client.optimiser.param_groups[0]["lr"] = rate(
                    config.client.schedule, config.client.lr, t, config.epochs, 0.2
                )
                client.steps += 1
            found = []
            for server in outcome.servers:
                server.optimiser.param_groups[0]["lr"] = rate(
                    config.server.schedule, config.server.lr, epoch, config.epochs, 0.1
                )
            sequence = range(len(pool)) if config.method == "sfl_v1" else order(epoch * steps + step, len(pool))
            if config.method == "split_vertical":
                hide = functools.partial(hidden, defend, epoch, step)
                found.append(vertical(config, outcome, [batches(epoch, step, i) for i in pool], hide))
                sequence = []
            for place in sequence:
                inputs, labels = batches(epoch, step, pool[place])
                client = outcome.clients[pool[place]]
                smashed = logits = client.online(inputs)
                optimisers, beside = [client.optimiser], 0.0
                if config.defence.nopeek:
                    beside = config.defence.nopeek * distance_correlation(inputs, smashed)
                if config.defence.anything:
                    logits = defend(epoch, step, pool[place], "query", logits)
                if outcome.servers:
                    server = outcome.servers[place if config.method == "sfl_v1" else 0]
                    logits = server.network(logits)
                    optimisers.append(server.optimiser)
                if config.method == "split_u_shaped":
                    logits = client.online.head(logits)
                loss = cross_entropy(logits, labels)
                if opponents:
                    beside = beside + opponents[pool[place]].term(smashed, inputs)
                learn(optimisers, loss + beside)
                found.append((float(loss.detach()), right(logits, labels)))
            outcome.losses.append(sum(loss for loss, _ in found) / len(found))
            outcome.accuracies.append(sum(hits for _, hits in found) / len(found))
            every = steps if turns else steps // config.federation.sync_freq
            if step == steps - 1 or step % every == every - 1:
                outcome.drifts.append(synchronise(config, fed_server, outcome.clients, pool, images, ()))
                if config.method == "sfl_v1":
                    shares = [images[i] if config.federation.weighting == "data" else 1.0 for i in pool]
                    average_servers(outcome.servers, shares)
    return outcome
