"""Signs of health of self-supervised learning: collapse of features, hardness of negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_BINS = 30


@torch.no_grad()
def feature_std(features: Tensor) -> float:
    """Spread of the directions of ``features [n, d]``: 1 = isotropic, 0 = collapsed to one direction.

    Mean over dimensions of the standard deviation of the l2-normalised rows, times √d (Chen & He, *Exploring
    Simple Siamese Representation Learning*, CVPR 2021, sec. 4.1). Population deviation; never above 1.
    """
    unit = F.normalize(features.double(), dim=1)
    return float(unit.std(dim=0, correction=0).mean()) * math.sqrt(features.shape[1])


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """Effective number of dimensions that ``features [n, d]`` use: 1 (one direction) to min(n, d); 0 if all are 0.

    exp(entropy of the singular values divided by their sum); rows are not centred (Roy & Vetterli, *The effective
    rank*, EUSIPCO 2007, eq. 3-5).
    """
    values = torch.linalg.svdvals(features.double())
    if float(values.sum()) == 0.0:
        return 0.0
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


@dataclass(frozen=True)
class Hardness:
    """Hardness of the negatives in a feature memory (MocoSFL, ICLR 2023, eq. 2-3), averaged over queries."""

    age: tuple[int, ...]
    """Age of each bin's newest rows in memory updates; 1 = written by the last update."""
    similarity_by_age: tuple[float, ...]
    """Mean over queries and rows of a bin of exp((cos - 1)/T), in (0, 1]; newest first."""
    eta: float
    """Similarity of the newest batch, at age 0: η of the fit η·γ^age."""
    gamma: float
    """Decay per memory update, in (0, 1]; NaN when a single bin leaves it undetermined."""
    batch: int
    """B: rows written per memory update."""
    memory: int
    """M: rows in the memory."""
    total: float
    """Hardness of the whole memory by the fit: B·η·γ·(1 - γ^⌊M/B⌋)/(1 - γ)."""


def total_hardness(eta: float, gamma: float, batch: int, memory: int) -> float:
    """Σ_{a=1..A} B·η·γ^a with A = ⌊M/B⌋ = B·η·γ·(1 - γ^A)/(1 - γ) (MocoSFL eq. 2-3); B·η·A at γ = 1."""
    updates = memory // batch
    if gamma == 1.0:
        return batch * eta * updates
    # expm1 keeps the digits of 1 - γ^A when γ is a hair below 1.
    return batch * eta * gamma * -math.expm1(updates * math.log(gamma)) / (1.0 - gamma)


@torch.no_grad()
def hardness(queries: Tensor, memory: Tensor, rows_per_update: int, temperature: float) -> Hardness:
    """Measure how hard the negatives of each age are, and fit the paper's geometric decay.

    ``queries [n, d]`` and ``memory [M, d]`` are l2-normalised, the memory's rows newest first; leave out rows that
    were never written. Call it before this step's keys enter, so that the newest rows are 1 update old: the
    paper's sum starts at γ^1.

    The paper calls a similarity η without saying which; a mean cosine can be negative, which no geometric decay
    fits. Taken here is exp((cos - 1)/T): the negative's term in the InfoNCE denominator (eq. 1) relative to that of
    a perfect match, hence its pull on the gradient. It is positive and comparable between epochs. η and γ are the
    least-squares line through its logarithm; where that line rises with age, γ is 1 and η the geometric mean.

    A bin is one update wide, or the fewest that leave at most 30 bins; a partial last bin is dropped.

    Raises
    ------
    ValueError
        Shapes that do not fit, fewer rows than one update writes, or a temperature that is not positive.
    """
    if queries.ndim != 2 or memory.ndim != 2 or queries.shape[1] != memory.shape[1] or len(queries) == 0:
        raise ValueError(f"queries {list(queries.shape)} and memory {list(memory.shape)} must be [n ≥ 1, d] and [M, d]")
    if not 1 <= rows_per_update <= len(memory):
        raise ValueError(f"rows_per_update = {rows_per_update} must lie between 1 and the memory's {len(memory)} rows")
    if not temperature > 0.0:
        raise ValueError(f"temperature = {temperature} must be positive")
    updates = len(memory) // rows_per_update
    width = -(-updates // _BINS)
    bins = updates // width
    rows = width * rows_per_update
    # Logarithms throughout: exp(-2/T) underflows float64 below T = 0.003, its logarithm does not.
    logits = (queries.double() @ memory[: bins * rows].double().T - 1.0) / temperature
    log_similarity = logits.reshape(len(queries), bins, rows).logsumexp(dim=(0, 2)) - math.log(len(queries) * rows)
    age = 1.0 + width * torch.arange(bins, dtype=torch.float64, device=logits.device)
    if bins == 1:
        slope = 0.0
    else:
        centred = age - age.mean()
        slope = min(0.0, float((centred * log_similarity).sum() / centred.square().sum()))
    decay = math.exp(slope)
    # A bin's mean of η·γ^a over its ages is η·γ^(first age) times the mean of γ^0 … γ^(width-1).
    within = math.fsum(decay**j for j in range(width)) / width
    eta = math.exp(float((log_similarity - slope * age).mean())) / within
    return Hardness(
        age=tuple(int(a) for a in age),
        similarity_by_age=tuple(float(s) for s in log_similarity.exp()),
        eta=eta,
        gamma=decay if bins > 1 else math.nan,
        batch=rows_per_update,
        memory=len(memory),
        total=total_hardness(eta, decay, rows_per_update, len(memory)),
    )
