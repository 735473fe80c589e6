"""What a step of training found, for the record."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepReport:
    """After a step: loss, accuracy (share of queries, contrastive or by their labels), unit queries ``[rows, d]``.

    ``memory_before``: the memory they were contrasted with, newest key first, where it was asked for;
    ``keys_per_update``: how many keys a step adds to it.
    """

    loss: float
    accuracy: float
    queries: Tensor
    memory_before: Tensor | None = None
    keys_per_update: int = 0
