"""MocoSFL and MonAcoSFL, slow and obvious: one Python object per client, one backward pass through everything.

Written from the specification of the published algorithms (shared/spec/algorithms.md, sections 3.2, 3.3, 4.2,
4.3, 4.4, 4.5), not from the package: whole networks, torch's own SGD, lists instead of rings and blocks. From the
package come only the initial weights, the two views of every image and the settings. Keep it slow.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mocosfl_mpi.config import Config
from tests.reference.defences import defended, distance_correlation
from tests.reference.resistance_oracle import Opponent

Views = Callable[[int, int, int], tuple[Tensor, Tensor]]
"""(epoch, step, client) to the two views of that client's batch, each ``[B, C, H, W]``."""
Weights = dict[str, Tensor]


@dataclass
class Drift:
    """What one synchronisation found: one row per client of the pool, one column per parameter tensor."""

    online_mean: list[list[float]] = field(default_factory=list)
    online_momentum: list[list[float]] = field(default_factory=list)
    momentum_mean: list[list[float]] = field(default_factory=list)
    online_momentum_distance: list[float] = field(default_factory=list)
    momentum_spread: list[float] = field(default_factory=list)


@dataclass
class Outcome:
    """All states after the last step."""

    online: list[Weights]
    momentum: list[Weights]
    velocity: list[Weights]
    server_online: Weights
    server_momentum: Weights
    server_velocity: Weights
    memory: list[Tensor]
    """Per memory: its keys ``[length, d]``, oldest first."""
    losses: list[float]
    accuracies: list[float]
    drifts: list[Drift]
    residual: list[Weights]
    server_residual: Weights
    states: str
    """Of communication saving, a letter an epoch."""


class Client:
    """A client as the papers draw it: an online network, a momentum network, an optimiser."""

    def __init__(self, bottom: nn.Module, config: Config) -> None:
        self.online = copy.deepcopy(bottom).train()
        self.momentum = copy.deepcopy(bottom).train()
        self.optimiser = torch.optim.SGD(
            self.online.parameters(),
            lr=0.0,
            momentum=config.client.momentum,
            weight_decay=config.client.weight_decay,
        )
        self.steps = 0
        self.residual = {name: torch.zeros_like(value) for name, value in bottom.state_dict().items()}
        """What compressed momentum updates have left out so far."""

    def velocity(self) -> Weights:
        return velocities(self.online, self.optimiser)


class FedServer:
    """What the fed server remembers."""

    def __init__(self, bottom: nn.Module) -> None:
        self.number = 0
        self.common = {state: weights_of(bottom) for state in ("online", "momentum")}
        """What a client would get that enters now, of every layer that any client has."""
        self.common["velocity"] = {name: torch.zeros_like(value) for name, value in weights_of(bottom).items()}
        self.momentum = weights_of(bottom)
        """The last momentum model that was common to all clients."""
        self.residual = {name: torch.zeros_like(value) for name, value in self.momentum.items()}


# ------------------------------------------------------------------------------------------------ formulas


def rate(schedule: str, initial: float, t: int, total: int, decay: float) -> float:
    """Section 4.3: cosine to 0 with T_max = total; or ×decay at 0.6 and 0.8 of total."""
    if schedule == "constant":
        return initial
    if schedule == "cosine":
        return 0.5 * initial * (1.0 + math.cos(math.pi * t / total))
    if 10 * t < 6 * total:
        return initial
    if 10 * t < 8 * total:
        return initial * decay
    return initial * decay * decay


def unit(vector: Tensor) -> Tensor:
    return vector / torch.sqrt((vector * vector).sum())


def nce(q: Tensor, k: Tensor, negatives: list[Tensor], temperature: float) -> Tensor:
    """-log( exp(q·k/T) / (exp(q·k/T) + Σ exp(q·n/T)) ) of one row."""
    positive = torch.exp((q * k).sum() / temperature)
    rest = torch.exp(torch.stack(negatives) @ q / temperature).sum()
    return -torch.log(positive / (positive + rest))


def best(q: Tensor, k: Tensor, negatives: list[Tensor]) -> bool:
    """Whether the positive beats every negative."""
    return bool(((q * k).sum() >= torch.stack(negatives) @ q).all())


def ema(slow: nn.Module, fast: nn.Module, tau: float) -> None:
    """slow ← τ·slow + (1-τ)·fast, parameters only."""
    with torch.no_grad():
        for s, f in zip(slow.parameters(), fast.parameters(), strict=True):
            s.copy_(tau * s + (1.0 - tau) * f)


def weights_of(module: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def velocities(module: nn.Module, optimiser: torch.optim.SGD) -> Weights:
    found = {}
    for name, parameter in module.named_parameters():
        buffer = optimiser.state[parameter].get("momentum_buffer") if parameter in optimiser.state else None
        found[name] = torch.zeros_like(parameter.detach()) if buffer is None else buffer.clone()
    return found


def quantised(tensor: Tensor) -> Tensor:
    """Eight-bit integers with one scale, and back."""
    scale = float(tensor.abs().max()) / 127
    numbers = [round(float(x) / scale) * scale if scale else 0.0 for x in tensor.reshape(-1)]
    return torch.tensor(numbers, dtype=tensor.dtype).reshape(tensor.shape)


def largest(tensor: Tensor, share: float) -> Tensor:
    """The largest magnitudes, the earlier of equal ones, and zeros."""
    numbers = tensor.reshape(-1).tolist()
    order = sorted(range(len(numbers)), key=lambda place: (-abs(numbers[place]), place))
    kept = set(order[: math.ceil(round(share * len(numbers), 9))])
    found = [x if place in kept else 0.0 for place, x in enumerate(numbers)]
    return torch.tensor(found, dtype=tensor.dtype).reshape(tensor.shape)


def halved(tensor: Tensor) -> Tensor:
    """Eight bits of a float32's significand, halves to even."""
    parts = [math.frexp(x) for x in tensor.float().reshape(-1).tolist()]
    return torch.tensor([round(m * 256) / 256 * 2.0**e for m, e in parts], dtype=tensor.dtype).reshape(tensor.shape)


def through(kind: str, share: float, batch: Tensor) -> Tensor:
    """What arrives of a batch, sample by sample; gradients pass as if nothing had happened to it."""
    if kind == "none":
        return batch
    how = {"bf16": halved, "int8": quantised, "topk": lambda sample: largest(sample, share)}[kind]
    return batch + torch.stack([how(sample) - sample for sample in batch.detach()])


def squeeze(config: Config, tensor: Tensor) -> Tensor:
    """What arrives of a tensor of a momentum update."""
    if config.federation.momentum_compression == "int8":
        return quantised(tensor)
    return largest(tensor, config.federation.momentum_topk)


def average(models: Sequence[Weights], shares: Sequence[float], otherwise: Weights | None = None) -> Weights:
    """Of each layer over those who have it; ``otherwise`` is there for layers that none of them has."""
    mean = dict(otherwise or {})
    for name in {name: None for model in models for name in model}:
        having = [(model[name], share) for model, share in zip(models, shares, strict=True) if name in model]
        total = sum(share for _, share in having)
        mean[name] = sum((share / total) * value for value, share in having)
    return mean


def longer(bottom: nn.Module, trunk: nn.Module, between: int) -> nn.Module:
    """A bottom with copies of the trunk's first layers, under their names."""
    layers = [*bottom.named_children(), *list(trunk.backbone.named_children())[:between]]
    return nn.Sequential(OrderedDict(layers))


def projections(server: nn.Module, batches: Sequence[Tensor], rich: Sequence[bool], between: int) -> Tensor:
    """All clients' batches through the server's layers; those of the rich have passed some of them at home."""
    if not between:
        return server(torch.cat(list(batches)))
    first, last = server.backbone[:between], server.backbone[between:]
    maps = [batch for batch, there in zip(batches, rich, strict=True) if there]
    others = [batch for batch, there in zip(batches, rich, strict=True) if not there]
    assert list(rich) == sorted(rich, reverse=True), "the rich have the lowest numbers"
    if others:
        maps.append(first(torch.cat(others)))
    return server.head(server.pool(last(torch.cat(maps))))


def norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float((t * t).sum()) for t in tensors))


# ---------------------------------------------------------------------------------------------- algorithm


def run(
    config: Config,
    bottom: nn.Module,
    trunk: nn.Module,
    memory: Sequence[Tensor],
    views: Views,
    pools: Callable[[int], Sequence[int]],
    images: Sequence[int],
    steps: int,
    arrives: Callable[[int, int, int], tuple[bool, bool, bool]] = lambda epoch, step, client: (True, True, True),
    present: Callable[[int, int, list[int]], list[bool]] = lambda epoch, step, pool: [True for _ in pool],
    order: Callable[[int], Sequence[int]] = lambda _: (),
    opponents: Sequence[Opponent] = (),
) -> Outcome:
    """Train for ``config.epochs`` epochs of ``steps`` steps.

    ``memory``: initial keys, oldest first; one list entry for everybody, or one per client. ``pools``: the clients
    of an epoch, in order. ``images``: image counts of all clients. ``arrives``: (epoch, step, client) to whether its
    query, its key and its gradient get through. ``present``: (epoch, step, pool) to who takes part in the
    synchronisation; see docs/clients.md. ``order``: of the batches that an epoch replays. ``opponents``: of all
    clients, where they learn to resist.
    """
    saving, defend = config.communication, defended(config)
    tau, temperature = config.contrast.momentum, config.contrast.temperature
    between, rich = 0, int(round(config.client.rich_share * config.client.count, 9))
    if config.model.rich_cut_layer is not None:
        between = config.model.rich_cut_layer - config.model.cut_layer
    deepest = longer(bottom, trunk, between) if between else bottom
    clients = [Client(deepest if i < rich else bottom, config) for i in range(config.client.count)]
    server, server_momentum = copy.deepcopy(trunk).train(), copy.deepcopy(trunk).train()
    server_optimiser = torch.optim.SGD(
        server.parameters(),
        lr=0.0,
        momentum=config.server.momentum,
        weight_decay=config.server.weight_decay,
    )
    fed_server = FedServer(deepest)
    lengths = [len(keys) for keys in memory]
    queues = [list(keys) for keys in memory]
    losses, accuracies, drifts = [], [], []
    state, states, before = "A", "", math.inf
    replay = {}

    def queue_of(client: int) -> int:
        return 0 if config.contrast.share_features else client

    for epoch in range(config.epochs):
        pool = list(pools(epoch))
        server_optimiser.param_groups[0]["lr"] = rate(
            config.server.schedule, config.server.lr, epoch, config.epochs, 0.1
        )
        states += state
        for step in range(steps):
            # Clients: online forward, EMA, momentum forward.
            comes_down = state == "A" and (epoch * steps + step + 1) % saving.download_every == 0
            smashed_queries, smashed_keys, owners, heard, answered, peeks = [], [], [], [], [], []
            at_cut = {}
            for i in pool if state != "C" else []:
                first, second = views(epoch, step, i)
                if config.contrast.symmetric == "both_views":
                    first, second = torch.cat([first, second]), torch.cat([second, first])
                ema(clients[i].momentum, clients[i].online, tau)
                query_arrives, key_arrives, gradient_arrives = arrives(epoch, step, i)
                if not (query_arrives and key_arrives):
                    continue
                heard.append(i)
                answered += [i] if gradient_arrives and comes_down else []
                smashed = clients[i].online(first)
                at_cut[i] = smashed, first
                if config.defence.nopeek and comes_down:
                    peeks.append(config.defence.nopeek * distance_correlation(first, smashed))
                smashed = defend(epoch, step, i, "query", smashed)
                if comes_down:
                    smashed.register_hook(lambda gradient: through(saving.gradient, saving.topk, gradient))
                else:
                    smashed = smashed.detach()
                smashed_queries.append(through(saving.smashed, saving.topk, smashed))
                with torch.no_grad():
                    hidden = defend(epoch, step, i, "key", clients[i].momentum(second))
                    smashed_keys.append(through(saving.smashed, saving.topk, hidden))
                owners += [i] * len(first)

            if not heard and state != "C":  # the server does nothing, and nobody gets a gradient
                losses.append(math.nan)
                accuracies.append(math.nan)
            else:
                # Server: EMA, forwards, loss.
                if state == "C":
                    h_q, h_k, owners, heard = replay[list(order(epoch))[step]]
                else:
                    h_q, h_k = smashed_queries, smashed_keys
                    replay[step] = [h.detach() for h in h_q], h_k, owners, heard
                deep = [i < rich for i in heard]
                ema(server_momentum, server, tau)
                with torch.no_grad():
                    k2 = [unit(z) for z in projections(server_momentum, h_k, deep, between)]
                q1 = [unit(z) for z in projections(server, h_q, deep, between)]
                rows = range(len(owners))
                terms = [nce(q1[j], k2[j], queues[queue_of(owners[j])], temperature) for j in rows]
                right = [best(q1[j], k2[j], queues[queue_of(owners[j])]) for j in rows]
                loss = sum(terms) / len(terms)
                keys = [k2]
                if config.contrast.symmetric == "published":  # l12 + l21; no client hangs on l21
                    with torch.no_grad():
                        k1 = [unit(z) for z in projections(server_momentum, h_q, deep, between)]
                    q2 = [unit(z) for z in projections(server, h_k, deep, between)]
                    terms = [nce(q2[j], k1[j], queues[queue_of(owners[j])], temperature) for j in rows]
                    loss = loss + sum(terms) / len(terms)
                    keys = [k1, k2]
                losses.append(float(loss.detach()))
                accuracies.append(sum(right) / len(right))

                # Enqueue.
                for block in keys:
                    for j in rows:
                        queues[queue_of(owners[j])].append(block[j].detach())
                queues = [queue[-length:] for queue, length in zip(queues, lengths, strict=True)]

                # One backward through server and clients; then everybody's SGD.
                server_optimiser.zero_grad()
                for i in pool:
                    clients[i].optimiser.zero_grad()
                loss = loss + sum(peeks) / len(heard)
                for i in answered if opponents else ():  # on the scale of the mean over those who were heard
                    loss = loss + opponents[i].term(*at_cut[i]) / len(heard)
                loss.backward()
                server_optimiser.step()
                for i in answered:
                    client = clients[i]
                    if config.client.gradient_scale == "own_rows":
                        for parameter in client.online.parameters():
                            parameter.grad.mul_(len(owners) / owners.count(i))
                    t = client.steps if config.client.schedule_step == "published" else epoch
                    client.optimiser.param_groups[0]["lr"] = (
                        0.0  # the published way to freeze: c_lr = 0
                        if config.client.frozen
                        else rate(config.client.schedule, config.client.lr, t, config.epochs, 0.2)
                    )
                    client.optimiser.step()
                    client.steps += 1

            # Fed server.
            m = steps // config.federation.sync_freq
            if step == steps - 1 or step % m == m - 1:
                missing = [i for i, there in zip(pool, present(epoch, step, pool), strict=True) if not there]
                drifts.append(synchronise(config, fed_server, clients, pool, images, missing))
        # Section 4.6.
        loss_of_epoch = sum(losses[-steps:]) / steps
        delta = saving.loss_threshold if epoch + 1 <= saving.warmup_epochs else max(before - loss_of_epoch, 0)
        before = loss_of_epoch
        state = {"A": "B", "B": "C", "C": "C"}[state] if delta < saving.loss_threshold else "A"

    return Outcome(
        online=[weights_of(client.online) for client in clients],
        momentum=[weights_of(client.momentum) for client in clients],
        velocity=[client.velocity() for client in clients],
        server_online=weights_of(server),
        server_momentum=weights_of(server_momentum),
        server_velocity=velocities(server, server_optimiser),
        memory=[torch.stack(queue) for queue in queues],
        losses=losses,
        accuracies=accuracies,
        drifts=drifts,
        residual=[client.residual for client in clients],
        server_residual=fed_server.residual,
        states=states,
    )


def synchronise(
    config: Config,
    fed_server: FedServer,
    clients: list[Client],
    pool: list[int],
    images: Sequence[int],
    missing: Sequence[int],
) -> Drift:
    """Sections 4.4 and 4.5: average over the pool, load into all clients; distances before and after.

    Those of the pool who are ``missing`` neither contribute nor receive. Other alignments: docs/alignment.md.
    """
    fed_server.number += 1
    federation = config.federation
    strategy = federation.alignment
    if strategy == "method":
        strategy = {"monacosfl": "online_and_momentum", "standalone": "none"}.get(config.method, "online")
    by_data = federation.weighting == "data"
    there = [i for i in pool if i not in missing]
    shares = [float(images[i]) if by_data else 1.0 for i in there]
    common = fed_server.common
    online = average([weights_of(clients[i].online) for i in there], shares, common["online"])
    momentum = average([weights_of(clients[i].momentum) for i in there], shares, common["momentum"])
    velocity = average([clients[i].velocity() for i in there], shares, common["velocity"])
    layers = {name: name.removeprefix("backbone.").split(".")[0] for name in online}
    aligned = [name for name in online if not federation.aligned_layers or layers[name] in federation.aligned_layers]
    common_momentum = aligned if strategy in ("momentum_reset", "online_and_momentum") else []
    for name in momentum:  # nobody who is there has it, and it was never made common
        if name not in common_momentum and not any(name in weights_of(clients[i].momentum) for i in there):
            momentum[name] = torch.full_like(momentum[name], math.nan)
    fresh = None  # the momentum model that every client gets
    if strategy == "momentum_reset":
        fresh = online
    elif strategy == "online_and_momentum" and fed_server.number % federation.momentum_every == 0:
        fresh = momentum
        if federation.momentum_compression != "none":
            updates = []
            for i in pool:
                update, slow = {}, weights_of(clients[i].momentum)
                for name in aligned:
                    wanted = slow[name] - fed_server.momentum[name] + clients[i].residual[name]
                    update[name] = squeeze(config, wanted)
                    clients[i].residual[name] = wanted - update[name]
                updates.append(update)
            mean = average(updates, shares)
            fresh = {}
            for name in aligned:
                wanted = mean[name] + fed_server.residual[name]
                update = squeeze(config, wanted)
                fed_server.residual[name] = wanted - update
                fresh[name] = fed_server.momentum[name] + update
        fed_server.momentum |= fresh
    drift = Drift()
    for i in pool:
        own, slow = weights_of(clients[i].online), weights_of(clients[i].momentum)
        nothing = [math.nan for name in online if name not in own]
        drift.online_mean.append([norm([own[name] - online[name]]) for name in own] + nothing)
        drift.online_momentum.append([norm([own[name] - slow[name]]) for name in own] + nothing)
        drift.momentum_mean.append([norm([slow[name] - momentum[name]]) for name in own] + nothing)
    if strategy != "none":
        common["online"] |= {name: online[name] for name in aligned}
        common["momentum"] |= {name: fresh[name] for name in aligned} if fresh is not None else {}
        if config.client.velocity_at_sync == "averaged":
            common["velocity"] |= {name: velocity[name] for name in aligned}
    for number, client in enumerate(clients):
        if strategy == "none" or number in missing:
            continue
        client.online.load_state_dict({name: online[name] for name in aligned}, strict=False)
        if fresh is not None:
            client.momentum.load_state_dict({name: fresh[name] for name in aligned}, strict=False)
        for name, parameter in client.online.named_parameters():
            if name in aligned and config.client.velocity_at_sync == "reset":
                client.optimiser.state.pop(parameter, None)
            if name in aligned and config.client.velocity_at_sync == "averaged":
                client.optimiser.state[parameter]["momentum_buffer"] = velocity[name].clone()
    for i in pool:
        own, slow = weights_of(clients[i].online), weights_of(clients[i].momentum)
        difference = norm([own[name] - slow[name] for name in own])
        drift.online_momentum_distance.append(difference / norm(list(own.values())))
        difference = norm([slow[name] - momentum[name] for name in own])
        drift.momentum_spread.append(difference / norm([momentum[name] for name in own]))
    return drift
