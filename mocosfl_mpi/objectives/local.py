"""Losses that a client computes by itself, with the whole network: what FL methods minimise.

All work on stacks of clients, and a lane never sees another. A client's rows are its batch in two views: the other
view of row i is row i ± rows/2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Outputs:
    """What one step of the clients' networks gave."""

    query: Tensor
    """Of the online models ``[lanes, rows, d]``; with a predictor ``[lanes, rows, 2d]``: prediction, projection."""
    key: Tensor | None
    """Of the momentum models, as ``query``; None where there are none."""
    negatives: Tensor | None
    """Past unit keys ``[lanes, K, d]``; None where none are kept."""
    temperature: float
    labels: Tensor | None = None
    """Classes of the images ``[lanes, rows]``; None where the objective does without."""

    @property
    def keys(self) -> Tensor:
        """What the momentum models gave; the objective must have declared that it wants them."""
        assert self.key is not None, "this objective has no momentum model"
        return self.key


Loss = Callable[[Outputs], tuple[Tensor, Tensor]]
"""To the mean loss over the rows of each lane ``[lanes]``, and the share of rows that rank their positive first
(NaN where nothing is ranked), or whose class scores highest."""


@dataclass(frozen=True)
class LocalObjective:
    """A loss, and what it needs of a client."""

    loss: Loss
    momentum: bool = False
    """A momentum model, from which keys come."""
    memory: bool = False
    """A memory of past keys as negatives."""
    predictor: bool = False
    """A predictor behind the projector."""
    labels: bool = False
    """Labels, and a classifier in the projector's place."""


def prediction(rows: Tensor) -> Tensor:
    """The first half of each row of a network with a predictor, as unit vectors."""
    return F.normalize(rows.chunk(2, dim=-1)[0], dim=-1)


def projection(rows: Tensor) -> Tensor:
    """The second half of each row of a network with a predictor, as unit vectors."""
    return F.normalize(rows.chunk(2, dim=-1)[1], dim=-1)


def _unranked(query: Tensor) -> Tensor:
    return query.new_full((len(query),), torch.nan)


def momentum_contrast(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """InfoNCE against the client's own past keys: -log( exp(q·k/T) / (exp(q·k/T) + Σ_m exp(q·m/T)) )."""
    assert outputs.negatives is not None
    unit = F.normalize(outputs.query, dim=-1)
    positive = (unit * F.normalize(outputs.keys, dim=-1)).sum(dim=-1, keepdim=True)
    logits = torch.cat([positive, unit @ outputs.negatives.transpose(1, 2)], dim=-1) / outputs.temperature
    loss = (torch.logsumexp(logits, dim=-1) - logits[..., 0]).mean(dim=1)
    return loss, (logits.detach().argmax(dim=-1) == 0).to(logits.dtype).mean(dim=1)


def bootstrap(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Predict the momentum model's projection of the other view: 2 - 2·cos(prediction, projection of the key)."""
    cosine = (prediction(outputs.query) * projection(outputs.keys)).sum(dim=-1)
    return (2.0 - 2.0 * cosine).mean(dim=1), _unranked(outputs.query)


def siamese(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Predict the online model's own projection of the other view, held fixed: -cos(prediction, stop-gradient)."""
    query = outputs.query
    other = projection(query).detach().roll(query.shape[1] // 2, dims=1)
    return -(prediction(query) * other).sum(dim=-1).mean(dim=1), _unranked(query)


def nt_xent(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """The other view j against all other rows of the batch: -log( exp(z_i·z_j/T) / Σ_{m≠i} exp(z_i·z_m/T) )."""
    unit = F.normalize(outputs.query, dim=-1)
    rows = torch.arange(unit.shape[1], device=unit.device)
    own = rows[:, None] == rows
    logits = (unit @ unit.transpose(1, 2) / outputs.temperature).masked_fill(own, -torch.inf)
    other = rows.roll(len(rows) // 2)
    hits = (logits.detach().argmax(dim=-1) == other).to(logits.dtype).mean(dim=1)
    return (torch.logsumexp(logits, dim=-1) - logits[:, rows, other]).mean(dim=1), hits


def classified(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Cross-entropy of logits ``[lanes, rows, classes]``, and the share of rows whose own class scores highest."""
    assert outputs.labels is not None, "this objective has not declared that it wants labels"
    logits, labels = outputs.query, outputs.labels
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    hits = (logits.detach().argmax(dim=-1) == labels).to(logits.dtype).mean(dim=1)
    return losses.view(labels.shape).mean(dim=1), hits


MOCO = LocalObjective(momentum_contrast, momentum=True, memory=True)
"""He et al. 2020, eq. 1."""
BYOL = LocalObjective(bootstrap, momentum=True, predictor=True)
"""Grill et al. 2020, eq. 2."""
SIMSIAM = LocalObjective(siamese, predictor=True)
"""Chen & He 2021, eq. 4."""
SIMCLR = LocalObjective(nt_xent)
"""Chen et al. 2020, eq. 1."""
SUPERVISED = LocalObjective(classified, labels=True)
"""Softmax cross-entropy."""
