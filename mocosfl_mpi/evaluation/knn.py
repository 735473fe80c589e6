"""Weighted k-nearest-neighbour accuracy of frozen features.

Wu et al., *Unsupervised Feature Learning via Non-Parametric Instance Discrimination*, CVPR 2018, sec. 3.4, in the
convention of the MoCo CIFAR-10 demo: cosine similarity s, vote weights exp(s/T), k = 200, T = 0.1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.evaluation.checks import check_features

_SIMILARITIES = 2**24
"""Query-bank similarities held at once: 64 MiB in float32, whatever the sizes of bank and queries."""


@torch.no_grad()
def knn_top1(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    classes: int,
    neighbours: int,
    temperature: float,
) -> float:
    """Top-1 accuracy in %: the share of ``knn_hits``."""
    hits = knn_hits(bank, bank_labels, queries, query_labels, classes, neighbours, temperature)
    return 100.0 * int(hits.sum()) / len(hits)


@torch.no_grad()
def knn_hits(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    classes: int,
    neighbours: int,
    temperature: float,
) -> Tensor:
    """Whether each of ``queries [m, d]`` is classified rightly by its nearest rows of ``bank [n, d]``: bool ``[m]``.

    Features need not be normalised; labels are int64 ``[n]`` and ``[m]``. The score of a class is the sum of
    exp(s/T) over those of the ``neighbours`` nearest rows (at most n) that belong to it; of equal scores the
    lowest class wins.

    Raises
    ------
    ValueError
        Shapes or labels that do not fit, no neighbour, or a temperature that is not positive.
    RunFailed
        A feature is NaN or infinite.
    """
    check_features("bank", bank, bank_labels, classes)
    check_features("query", queries, query_labels, classes)
    if bank.shape[1] != queries.shape[1]:
        raise ValueError(f"bank features have {bank.shape[1]} dimensions, query features {queries.shape[1]}")
    if neighbours < 1 or not temperature > 0.0:
        raise ValueError(f"neighbours = {neighbours} must be ≥ 1 and temperature = {temperature} positive")
    nearest = min(neighbours, len(bank))
    keys = F.normalize(bank, dim=1).T.contiguous()
    hits = []
    rows = max(1, _SIMILARITIES // len(bank))
    for points, truth in zip(queries.split(rows), query_labels.split(rows), strict=True):
        similarity, index = (F.normalize(points, dim=1) @ keys).topk(nearest, dim=1)
        # exp(s/T) overflows float32 below T = 0.012; taking off each query's maximum leaves the order as it is.
        votes = ((similarity - similarity[:, :1]) / temperature).exp()
        scores = votes.new_zeros(len(points), classes).scatter_add_(1, bank_labels[index], votes)
        hits.append(scores.argmax(dim=1) == truth)
    return torch.cat(hits)
