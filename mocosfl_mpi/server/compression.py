"""Lossy compression of weight updates, as it would travel: what arrives, and its exact number of bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

INDEX = 4
"""Bytes of a position inside a parameter tensor."""
LEVELS = 127


class Compressor(Protocol):
    """Q: one parameter tensor of several senders."""

    def __call__(self, rows: Tensor) -> Tensor:
        """What arrives of ``rows [n, numbers]``, one sender a row, which depends on no other row."""

    def bytes(self, numbers: int, itemsize: int) -> int:
        """Bytes of one row of ``numbers`` numbers of ``itemsize`` bytes."""


@dataclass(frozen=True)
class Int8:
    """Symmetric 8-bit integers: x → s · round(x / s) with s = max |x| / 127, halves to even; s travels too."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Zeros stay zeros, the largest magnitude arrives as it is but for rounding."""
        scale = rows.abs().amax(dim=1, keepdim=True) / LEVELS
        steps = torch.round(rows / scale).nan_to_num(0.0).clamp(-LEVELS, LEVELS)  # 0/0 where all are zero
        return steps * scale

    def bytes(self, numbers: int, itemsize: int) -> int:
        """A byte a number, and the scale."""
        return numbers + itemsize


@dataclass(frozen=True)
class TopK:
    """The ⌈share · numbers⌉ largest magnitudes as they are, and zero for the rest; equal ones by position."""

    share: float

    def __call__(self, rows: Tensor) -> Tensor:
        """A stable sort decides among equals, so that they fall alike everywhere."""
        chosen = torch.argsort(rows.abs(), dim=1, descending=True, stable=True)[:, : self._count(rows.shape[1])]
        return torch.zeros_like(rows).scatter_(1, chosen, rows.gather(1, chosen))

    def _count(self, numbers: int) -> int:
        return math.ceil(round(self.share * numbers, 9))

    def bytes(self, numbers: int, itemsize: int) -> int:
        """Position and value of each."""
        return self._count(numbers) * (INDEX + itemsize)
