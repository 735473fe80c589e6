"""What stands on the backbone while it learns, and is thrown away afterwards: projectors, predictors, classifiers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mocosfl_mpi.config import Model
from mocosfl_mpi.networks import EXPANSION
from mocosfl_mpi.split import backbones

KEY_DIM = {"V1": 128, "smallV2": 512, "V2": 1024, "largeV2": 2048}


def head_dims(model: Model) -> tuple[int, int]:
    """``(hidden, key)`` dimensions of the projector: as set, or as published for the head and backbone."""
    key = model.key_dim or KEY_DIM[model.head]
    published = 4096 if model.head == "largeV2" else key * EXPANSION.get(model.backbone, 1)
    return model.hidden_dim or published, key


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm by the statistics of the rows at hand, in training and evaluation alike; it keeps none.

    A client's network is a row of numbers that is averaged; running statistics would be state beside it, of which the
    published code averages some and forgets others (see ``layers.BatchNorm``). Only projections pass through here, and
    only their kNN score depends on what is encoded together.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, track_running_stats=False)

    def forward(self, rows: Tensor) -> Tensor:
        """``[n, width]`` to the same."""
        return torch.batch_norm(rows, self.weight, self.bias, None, None, True, 0.0, self.eps, False)


def projector(model: Model, norm: type[nn.Module]) -> nn.Module:
    """Backbone features to keys, not normalised; ``norm`` is the BatchNorm of the heads that have one."""
    features = backbones.feature_dim(model)
    hidden, key = head_dims(model)
    if model.head == "V1":
        return nn.Linear(features, key)
    return _mlp(model, norm, features, hidden, key)


def classifier(model: Model, classes: int) -> nn.Module:
    """Backbone features to one logit per class."""
    return nn.Linear(backbones.feature_dim(model), classes)


def predictor(model: Model) -> nn.Module:
    """Keys to keys, with the projector's hidden layer (BYOL, SimSiam)."""
    hidden, key = head_dims(model)
    return _mlp(model, BatchNorm, key, hidden, key)


def _mlp(model: Model, norm: type[nn.Module], inputs: int, hidden: int, outputs: int) -> nn.Module:
    between = [norm(hidden)] if model.head == "largeV2" else []
    return nn.Sequential(nn.Linear(inputs, hidden), *between, nn.ReLU(), nn.Linear(hidden, outputs))
