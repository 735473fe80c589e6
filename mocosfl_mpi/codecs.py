"""Lossy compression as it would travel: what arrives, and its exact number of bytes.

Of momentum updates (a row is a parameter tensor of one client), and of smashed data and their gradients (a row is the
map of one sample). docs/communication.md has the formulae.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

INDEX = 4
"""Bytes of a number's position inside its row."""
SCALE = 4
"""Fewest bytes of a scale: that of bfloat16 rows is a float32."""
LEVELS = 127


@dataclass(frozen=True)
class Work:
    """FLOPs of a codec: one for an addition, subtraction, multiplication, division or root.

    Magnitudes, comparisons and sorting, rounding to whole numbers, and changes of format are no floating-point
    arithmetic and count nothing.
    """

    row: int = 0
    """To quantise a row, whatever its length."""
    sent: int = 0
    """To quantise a number."""
    received: int = 0
    """To have a number again."""

    def quantise(self, numbers: int) -> int:
        """FLOPs of the sender of a row."""
        return self.row + self.sent * numbers

    def restore(self, numbers: int) -> int:
        """FLOPs of the receiver of a row."""
        return self.received * numbers


class Codec(Protocol):
    """Q: rows there, quantised by who sends them, and back to numbers by who receives them."""

    work: ClassVar[Work]
    """What that takes."""

    def __call__(self, rows: Tensor) -> Tensor:
        """What arrives of ``rows [n, numbers]``, in their type; a row depends on no other row."""

    def bytes(self, numbers: int, itemsize: int) -> int:
        """Bytes of one row of ``numbers`` numbers of ``itemsize`` bytes."""


@dataclass(frozen=True)
class Full:
    """Everything as it is."""

    work: ClassVar[Work] = Work()

    def __call__(self, rows: Tensor) -> Tensor:
        """The same."""
        return rows

    def bytes(self, numbers: int, itemsize: int) -> int:
        """All numbers."""
        return numbers * itemsize


@dataclass(frozen=True)
class BFloat16:
    """The upper half of a float32: 8 bits of significand, halves to even. A float64 becomes a float32 first."""

    work: ClassVar[Work] = Work()

    def __call__(self, rows: Tensor) -> Tensor:
        """Relative error at most 2^-8, but below the smallest normal number."""
        return rows.to(torch.float32).to(torch.bfloat16).to(rows.dtype)

    def bytes(self, numbers: int, itemsize: int) -> int:  # noqa: ARG002
        """Two bytes a number."""
        return 2 * numbers


@dataclass(frozen=True)
class Int8:
    """Symmetric 8-bit integers: x → s · round(x / s) with s = max |x| / 127, halves to even; s travels too."""

    work: ClassVar[Work] = Work(row=1, sent=1, received=1)
    """max |x| / 127; x / s; s times a whole number."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Zeros stay zeros, the largest magnitude arrives as it is but for rounding. In float32 at least."""
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        scale = wide.abs().amax(dim=1, keepdim=True) / LEVELS
        steps = torch.round(wide / scale).nan_to_num(0.0).clamp(-LEVELS, LEVELS)  # 0/0 where all are zero
        return (steps * scale).to(rows.dtype)

    def bytes(self, numbers: int, itemsize: int) -> int:
        """A byte a number, and the scale."""
        return numbers + max(SCALE, itemsize)


@dataclass(frozen=True)
class TopK:
    """The ⌈share · numbers⌉ largest magnitudes as they are, and zero for the rest; equal ones by position."""

    share: float
    work: ClassVar[Work] = Work()

    def __call__(self, rows: Tensor) -> Tensor:
        """A stable sort decides among equals, so that they fall alike everywhere."""
        chosen = self.places(rows)
        return torch.zeros_like(rows).scatter_(1, chosen, rows.gather(1, chosen))

    def places(self, rows: Tensor) -> Tensor:
        """Places ``[n, kept]`` of the numbers in each row that are kept."""
        return torch.argsort(rows.abs(), dim=1, descending=True, stable=True)[:, : self._count(rows.shape[1])]

    def _count(self, numbers: int) -> int:
        return math.ceil(round(self.share * numbers, 9))

    def bytes(self, numbers: int, itemsize: int) -> int:
        """Position and value of each."""
        return self._count(numbers) * (INDEX + itemsize)


def codec(name: str, share: float) -> Codec:
    """The codec that settings call ``name``; ``share`` is what `topk` keeps."""
    codecs: dict[str, Codec] = {"none": Full(), "bf16": BFloat16(), "int8": Int8(), "topk": TopK(share)}
    return codecs[name]


def of_samples(codec: Codec, maps: Tensor) -> Tensor:
    """What arrives of ``maps [..., C, h, w]``, each sample's map a row of its own: channel by channel, row by row."""
    if isinstance(codec, Full):
        return maps
    return codec(maps.flatten(-3).flatten(0, -2)).view(maps.shape)
