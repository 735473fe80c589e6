"""What every evaluation asks of features and labels before it trusts them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mocosfl_mpi.errors import RunFailed


class Labelled(NamedTuple):
    """Features ``[n, d]`` and their labels, int64 ``[n]``."""

    features: Tensor
    labels: Tensor


def check_features(what: str, features: Tensor, labels: Tensor, classes: int) -> None:
    """Check ``features [n, d]`` with ``labels [n]`` in 0 … ``classes`` - 1; ``what`` names them in messages.

    Raises
    ------
    ValueError
        Empty or ill-shaped features, or a label out of range: a mistake of the caller.
    RunFailed
        A feature is NaN or infinite: the training has diverged, and any accuracy would be an accident.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"{what} features must be [n, d] with n, d ≥ 1, not {list(features.shape)}")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"{what}: {len(features)} feature rows but labels of shape {list(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{what} labels run from {low} to {high}; expected 0 to {classes - 1}")
    finite = torch.isfinite(features).all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise RunFailed(
            f"{bad} of {len(features)} {what} feature rows are NaN or infinite: the encoder has diverged; "
            f"lower server.lr or client.lr"
        )
