"""Projectors and predictors: what stands on the backbone while it learns, and is thrown away afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mocosfl_mpi.config import Model
from mocosfl_mpi.split import backbones

KEY_DIM = {"V1": 128, "smallV2": 512, "V2": 1024, "largeV2": 2048}


def head_dims(model: Model) -> tuple[int, int]:
    """``(hidden, key)`` dimensions of the projector: as set, or as published for the head and backbone."""
    key = model.key_dim or KEY_DIM[model.head]
    return model.hidden_dim or (4096 if model.head == "largeV2" else key), key


class BatchNorm(nn.Module):
    """BatchNorm over the rows of one client, without running statistics: at evaluation, too, the batch is its own norm.

    A client's network is a row of numbers that is averaged; running statistics would be state beside it, of which the
    published code averages some and forgets others (spec: bugs 7 to 9). Only projections pass through here, and only
    their kNN score depends on what stands in a batch.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, rows: Tensor) -> Tensor:
        """``[n, width]`` to the same."""
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        return (rows - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def projector(model: Model, norm: type[nn.Module]) -> nn.Module:
    """Backbone features to keys, not normalised; ``norm`` is the BatchNorm of the heads that have one."""
    features = backbones.feature_dim(model)
    hidden, key = head_dims(model)
    if model.head == "V1":
        return nn.Linear(features, key)
    return _mlp(model, norm, features, hidden, key)


def predictor(model: Model) -> nn.Module:
    """Keys to keys, with the projector's hidden layer (BYOL, SimSiam)."""
    hidden, key = head_dims(model)
    return _mlp(model, BatchNorm, key, hidden, key)


def _mlp(model: Model, norm: type[nn.Module], inputs: int, hidden: int, outputs: int) -> nn.Module:
    between = [norm(hidden)] if model.head == "largeV2" else []
    return nn.Sequential(nn.Linear(inputs, hidden), *between, nn.ReLU(), nn.Linear(hidden, outputs))
