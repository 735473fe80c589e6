"""One step of a victim from its checkpoint on: the gradients that travel, and what a client's weights become."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.attacks.guards import added, answered, sending
from mocosfl_mpi.attacks.victim import Client, Victim
from mocosfl_mpi.attacks.view import Gradients
from mocosfl_mpi.clients.shield import Pull
from mocosfl_mpi.objectives.contrast import info_nce, symmetry
from mocosfl_mpi.objectives.local import Outputs
from mocosfl_mpi.split.cut import Ends

ROWS = 250
"""Rows that pass a trunk together: its layers look at one row at a time."""


def at_cut(
    victim: Victim, smashed: Tensor, beside: Tensor, negatives: Tensor | None = None, head: nn.Module | None = None
) -> Tensor:
    """Gradients at the cut ``[n, c, h, w]`` that the main server sends down, each of its row's own loss.

    ``beside``: smashed keys of the same shape, or labels ``[n]``; ``negatives`` ``[K, d]``: the feature memory where
    there are keys; ``head``: the classifier, where it is not the trunk's. A server that sends the gradient of the mean
    sends these over the number of rows.
    """
    trunk, momentum = victim.trunk, victim.momentum_trunk
    assert trunk is not None
    found = []
    for part, other in zip(smashed.split(ROWS), beside.split(ROWS), strict=True):
        rows = part.detach().requires_grad_()
        if victim.config.supervised:
            logits = trunk(rows) if head is None else head(trunk(rows))
            loss = F.cross_entropy(logits, other, reduction="sum")
        else:
            assert momentum is not None
            assert negatives is not None
            unit = F.normalize(trunk(rows), dim=1)
            keys = F.normalize(momentum(other), dim=1)
            loss, _ = info_nce(unit, keys, unit @ negatives.T, victim.config.contrast.temperature)
        found.append(torch.autograd.grad(loss, rows)[0])
    return torch.cat(found)


def at_features(victim: Victim, client: Client, smashed: Tensor, labels: Tensor) -> Tensor:
    """Gradients at the pooled features ``[n, f]`` that a U-shaped client sends up, each of its row's own loss."""
    assert victim.trunk is not None
    assert isinstance(client.online, Ends)
    with torch.no_grad():
        features = torch.cat([victim.trunk.features(part) for part in smashed.split(ROWS)])
    features.requires_grad_()
    loss = F.cross_entropy(client.online.head(features), labels, reduction="sum")
    return torch.autograd.grad(loss, features)[0]


def keys_of(victim: Victim, smashed: Tensor) -> Tensor:
    """Unit keys ``[n, d]`` that the momentum trunk makes of smashed keys."""
    momentum = victim.momentum_trunk
    assert momentum is not None
    with torch.no_grad():
        return torch.cat([F.normalize(momentum(part), dim=1) for part in smashed.split(ROWS)])


def gradients_at_cut(
    victim: Victim, client: Client, views: Tensor, labels: Tensor | None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """What the server sends a client for the batch ``views`` (see ``local_gradient``), of the mean over its rows; and
    what the client steps on: that, through its defences, and with its own terms at the cut.

    What is sent is defended as in training; ``seed`` is of a random defence's draws.
    """
    query, key = _roles(victim, views, labels)
    send = sending(victim, client.number)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        clean = smashed = client.online(query)
        keys = None if client.momentum is None else client.momentum(key)
    pull: Pull | None = None
    if send is not None:
        smashed, pull = send(smashed, generator, query)
        keys = None if keys is None else send(keys, generator, key)[0]
    if labels is not None:
        head = client.online.head if isinstance(client.online, Ends) else None
        found = at_cut(victim, smashed, labels, head=head)
    else:
        memory = victim.memory()
        assert keys is not None
        assert memory is not None
        found = at_cut(victim, smashed, keys, memory[0 if victim.config.contrast.share_features else client.number])
    down = answered(victim, found / len(smashed))
    return down, (down if pull is None else pull(down)) + added(victim, client.number, clean, query)


def local_gradient(
    victim: Victim, client: Client, labels: Tensor | None, above: Tensor | None
) -> Callable[[Tensor], Gradients]:
    """The gradient at the client's weights as a function of its batch ``[u, C, H, W]``, normalised; differentiable.

    A batch are first views, and then (without labels) as many second ones of the same images. ``above``: gradients at
    the cut, where the loss is not the client's own; what is given is then true at them, whatever the batch.
    """
    local = ALGORITHMS[victim.config.method].local
    module = copy.deepcopy(client.online).requires_grad_(True)
    weights = list(module.parameters())

    def gradient(views: Tensor) -> Gradients:
        query, key = _roles(victim, views, labels)
        outputs = module(query)
        if local is None:
            assert above is not None
            aim = (outputs * above).sum()
        else:
            keys = None if client.momentum is None else client.momentum(key)[None]
            memory = None if client.memory is None else client.memory[None]
            given = None if labels is None else labels[None]
            temperature = victim.config.contrast.temperature
            loss, _ = local.loss(Outputs(outputs[None], keys, memory, temperature, given))
            aim = loss.sum() * symmetry(victim.config).terms
        found = torch.autograd.grad(aim, weights, create_graph=True, allow_unused=True, materialize_grads=True)
        return tuple(found)

    return gradient


def sgd(victim: Victim, module: nn.Module, gradient: Gradients) -> Gradients:
    """What the update of one SGD step tells of its gradient, to the rounding of float32.

    The client begins without velocity, and whoever sees its weights before and after knows rate and weight decay.
    """
    settings = victim.config.client
    found = []
    for weight, slope in zip(module.parameters(), gradient, strict=True):
        before = weight.detach()
        after = before - settings.lr * (slope.detach() + settings.weight_decay * before)
        found.append((before - after) / settings.lr - settings.weight_decay * before)
    return tuple(found)


def _roles(victim: Victim, views: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Query and key images of a batch."""
    if labels is not None:
        return views, views
    first, second = views.chunk(2)
    query, key = symmetry(victim.config).assign(first[None], second[None])
    return query[0], key[0]
