"""Rows of smashed data: of several cuts of one network they have several shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows ``[n, …]`` in client order: those of the deepest cut first, one tensor for each cut, each perhaps empty."""

    parts: tuple[Tensor, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, at: slice | Tensor) -> Rows:
        """Those of a slice, or of a mask ``[n]`` (bool), of all rows."""
        if isinstance(at, Tensor):
            own = at.split([len(part) for part in self.parts])
            return Rows(tuple(part[mask] for part, mask in zip(self.parts, own, strict=True)))
        begin, end, _ = at.indices(len(self))
        found = []
        for part in self.parts:
            found.append(part[max(begin, 0) : max(end, 0)])
            begin, end = begin - len(part), end - len(part)
        return Rows(tuple(found))

    def among(self, everyone: Rows, at: Tensor) -> Rows:
        """These rows at the places of a mask ``[n]`` (bool) of ``everyone``, and zeros at the others."""
        found = []
        own = at.split([len(part) for part in everyone.parts])
        for rows, whole, mask in zip(self.parts, everyone.parts, own, strict=True):
            placed = rows.new_zeros(whole.shape)
            placed[mask] = rows
            found.append(placed)
        return Rows(tuple(found))

    @property
    def only(self) -> Tensor:
        """All of them, where there is one cut."""
        (part,) = self.parts
        return part

    def map(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The same rows, each part changed."""
        return Rows(tuple(change(part) for part in self.parts))


Maps = TypeVar("Maps", Tensor, Rows)
"""Rows of one cut as a tensor, or of several."""


def one_after_another(pieces: Sequence[Maps]) -> Maps:
    """Rows of the same cuts, piece after piece."""
    if isinstance(pieces[0], Tensor):
        return torch.cat(list(pieces))
    return Rows(tuple(torch.cat(parts) for parts in zip(*(piece.parts for piece in pieces), strict=True)))
