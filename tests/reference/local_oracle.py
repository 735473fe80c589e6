"""FL-SSL, slow and obvious: every client trains a whole network by itself; every so often the networks are averaged.

Written from the papers (MoCo eq. 1, BYOL eq. 2, SimSiam eq. 4, SimCLR eq. 1; FedU section 3, FedEMA section 4) and the
specification of the published FL baseline (section 7), not from the package. From the package come the initial weights,
the views and the settings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mocosfl_mpi.config import Config
from tests.reference.oracle import (
    Drift,
    FedServer,
    Views,
    Weights,
    average,
    best,
    ema,
    nce,
    norm,
    rate,
    synchronise,
    unit,
    velocities,
    weights_of,
)

MOCO = ("fl_moco", "standalone", "central")
BYOL = ("fl_byol", "fedu", "fedema")
MIXING = ("fedu", "fedema")


class Client:
    """A client with the whole network. Without a momentum network its place is taken by the online one."""

    def __init__(self, network: nn.Module, config: Config) -> None:
        self.online = copy.deepcopy(network).train()
        slow = config.method in (*MOCO, *BYOL)
        self.momentum = copy.deepcopy(network).train() if slow else self.online
        self.optimiser = torch.optim.SGD(
            self.online.parameters(), lr=0.0, momentum=config.client.momentum, weight_decay=config.client.weight_decay
        )
        self.queue: list[Tensor] = []
        self.residual = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
        self.steps = 0
        self.scale = 0.0
        """FedEMA's λ; 0 = not yet known."""
        self.heard = 0
        """The number of the last synchronisation in which it took part."""

    def velocity(self) -> Weights:
        return velocities(self.online, self.optimiser)


@dataclass
class Outcome:
    """All states after the last step."""

    clients: list[Client]
    losses: list[float]
    accuracies: list[float]
    drifts: list[Drift]
    shares: list[list[float]]
    """FedU and FedEMA: by synchronisation and client of the pool, what it kept of its own."""


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / torch.sqrt((a * a).sum() * (b * b).sum())


def one_client(config: Config, client: Client, first: Tensor, second: Tensor) -> tuple[Tensor, list[bool]]:
    """Loss of one client in one step, and which rows rank their positive first; its queue goes on."""
    temperature, symmetric = config.contrast.temperature, config.contrast.symmetric
    n = len(first)
    alone = symmetric == "off"
    out = client.online(first if alone else torch.cat([first, second]))
    one, two = out[:n], out[n:]
    if client.momentum is not client.online:
        ema(client.momentum, client.online, config.contrast.momentum)
        with torch.no_grad():  # keys of the second view, then of the first
            slow = client.momentum(second if alone else torch.cat([second, first]))
        slow_two, slow_one = slow[:n], slow[n:]
    terms: list[list[Tensor]] = []
    right: list[bool] = []
    if config.method in MOCO:
        length = len(client.queue)
        pairs = [(one, slow_two)] if alone else [(one, slow_two), (two, slow_one)]
        for q, k in pairs:
            terms.append([nce(unit(q[j]), unit(k[j]), client.queue, temperature) for j in range(n)])
            right += [best(unit(q[j]), unit(k[j]), client.queue) for j in range(n)]
        order = [slow_one, slow_two] if symmetric == "published" else [slow_two, slow_one]
        client.queue += [unit(row) for block in order for row in block]
        client.queue = client.queue[-length:]
    elif config.method in BYOL:
        d = out.shape[1] // 2
        terms.append([2 - 2 * cosine(one[j, :d], slow_two[j, d:]) for j in range(n)])
        if not alone:
            terms.append([2 - 2 * cosine(two[j, :d], slow_one[j, d:]) for j in range(n)])
    elif config.method == "fl_simsiam":
        d = out.shape[1] // 2
        terms.append([-cosine(one[j, :d], two[j, d:].detach()) for j in range(n)])
        terms.append([-cosine(two[j, :d], one[j, d:].detach()) for j in range(n)])
    else:
        rows = [unit(z) for z in out]
        term = []
        for i in range(2 * n):
            partner = (i + n) % (2 * n)
            others = [rows[m] for m in range(2 * n) if m != i]
            scores = torch.stack([torch.exp((rows[i] * other).sum() / temperature) for other in others])
            positive = torch.exp((rows[i] * rows[partner]).sum() / temperature)
            term.append(-torch.log(positive / scores.sum()))
            right.append(bool((positive >= scores).all()))
        terms += [term[:n], term[n:]]
    means = [sum(term) / n for term in terms]
    loss = sum(means)
    return loss / len(means) if symmetric == "both_views" else loss, right


class MixingServer:
    """What the fed server of FedU and FedEMA remembers."""

    def __init__(self, network: nn.Module) -> None:
        self.number = 0
        self.online = weights_of(network)


def catch_up(config: Config, server: MixingServer, client: Client) -> None:
    """A client that missed the last mean begins with it; so does its momentum network, if it is new or in FedEMA."""
    if client.heard != server.number:
        client.online.load_state_dict(server.online)
        if config.method == "fedema" or client.heard == 0:
            client.momentum.load_state_dict(server.online)


def mix(
    config: Config, server: MixingServer, clients: list[Client], pool: list[int], images: Sequence[int]
) -> tuple[Drift, list[float]]:
    """One synchronisation of FedU or FedEMA: its drift, and what each client kept of its own."""
    server.number += 1
    shares = [float(images[i]) if config.federation.weighting == "data" else 1.0 for i in pool]
    mean = average([weights_of(clients[i].online) for i in pool], shares)
    slow = average([weights_of(clients[i].momentum) for i in pool], shares)
    drift, kept = Drift(), []
    for i in pool:
        client = clients[i]
        own, momentum = weights_of(client.online), weights_of(client.momentum)
        drift.online_mean.append([norm([own[name] - mean[name]]) for name in own])
        drift.online_momentum.append([norm([own[name] - momentum[name]]) for name in own])
        drift.momentum_mean.append([norm([momentum[name] - slow[name]]) for name in own])
        filters = [name for name in own if name.startswith("backbone.") and own[name].dim() == 4]
        divergence = sum(norm([own[name] - mean[name]]) for name in filters) / len(filters)
        mixed = {}
        if config.method == "fedu":
            share = 0.0 if divergence < config.federation.divergence_threshold else 1.0
            for name in own:
                keeps = name.startswith("predictor.") and share == 1.0
                mixed[name] = own[name] if keeps else mean[name]
        else:
            if client.scale == 0.0:
                client.scale = config.federation.divergence_target / divergence
            share = min(client.scale * divergence, 1.0)
            for name in own:
                mixed[name] = share * own[name] + (1.0 - share) * mean[name]
        client.online.load_state_dict(mixed)
        client.heard = server.number
        kept.append(share)
        difference = norm([mixed[name] - momentum[name] for name in own])
        drift.online_momentum_distance.append(difference / norm(list(mixed.values())))
        drift.momentum_spread.append(norm([momentum[name] - slow[name] for name in own]) / norm(list(slow.values())))
    server.online = mean
    velocity = average([clients[i].velocity() for i in pool], shares)
    for client in clients:
        for name, parameter in client.online.named_parameters():
            if config.client.velocity_at_sync == "reset":
                client.optimiser.state.pop(parameter, None)
            if config.client.velocity_at_sync == "averaged":
                client.optimiser.state[parameter]["momentum_buffer"] = velocity[name].clone()
    return drift, kept


def run(
    config: Config,
    network: nn.Module,
    memory: Tensor,
    views: Views,
    pools: Callable[[int], Sequence[int]],
    images: Sequence[int],
    steps: int,
    present: Callable[[int, int, list[int]], list[bool]] = lambda epoch, step, pool: [True for _ in pool],
) -> Outcome:
    """Train for ``config.epochs`` epochs of ``steps`` steps; ``memory [K, d]``: the keys with which all begin.

    ``present``: (epoch, step, pool) to who takes part in the synchronisation.
    """
    clients = [Client(network, config) for _ in range(config.client.count)]
    for client in clients:
        client.queue = list(memory)
    fed_server, mixing_server = FedServer(network), MixingServer(network)
    losses, accuracies, drifts, shares = [], [], [], []
    for epoch in range(config.epochs):
        pool = list(pools(epoch))
        if config.method in MIXING:
            for i in pool:
                catch_up(config, mixing_server, clients[i])
        for step in range(steps):
            found, hits = [], []
            for i in pool:
                client = clients[i]
                loss, right = one_client(config, client, *views(epoch, step, i))
                client.optimiser.zero_grad()
                loss.backward()
                t = client.steps if config.client.schedule_step == "published" else epoch
                client.optimiser.param_groups[0]["lr"] = rate(
                    config.client.schedule, config.client.lr, t, config.epochs, 0.2
                )
                client.optimiser.step()
                client.steps += 1
                found.append(float(loss.detach()))
                hits.append(sum(right) / len(right) if right else float("nan"))
            losses.append(sum(found) / len(found))
            accuracies.append(sum(hits) / len(hits))
            m = steps // config.federation.sync_freq
            if step == steps - 1 or step % m == m - 1:
                missing = [i for i, there in zip(pool, present(epoch, step, pool), strict=True) if not there]
                if config.method in MIXING:
                    drift, kept = mix(config, mixing_server, clients, pool, images)
                    shares.append(kept)
                else:
                    drift = synchronise(config, fed_server, clients, pool, images, missing)
                drifts.append(drift)
    if config.method in MIXING:
        for client in clients:
            catch_up(config, mixing_server, client)
    return Outcome(clients, losses, accuracies, drifts, shares)
