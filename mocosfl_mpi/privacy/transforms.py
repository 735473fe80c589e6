"""What a client does to its smashed data before they leave, and what its backward pass makes of that.

A chain of small pieces in one order: move against a decoder ▸ clip ▸ add noise ▸ drop elements ▸ keep the largest ▸
quantise. Attacks take it from a configuration by ``guard``: what a victim sends in an attack is defended as in
training, and an attacker who knows the defence can draw from it. docs/defences.md has formulae, sources, and what none
of them protects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.clients.shield import Pull
from mocosfl_mpi.codecs import TopK
from mocosfl_mpi.config import Config

Draws = Sequence[np.random.Generator]
"""Of each batch its own."""
_ROW = 2
"""Axes before the numbers of a sample."""


def _as_it_is(gradient: Tensor) -> Tensor:
    return gradient


def _drawn(draw: Callable[[np.random.Generator], npt.NDArray[np.float64]], draws: Draws, like: Tensor) -> Tensor:
    """Numbers of every batch's own generator, ``[lanes, n, numbers]`` together."""
    return torch.stack([torch.from_numpy(draw(generator)) for generator in draws]).to(like)


class Piece(Protocol):
    """One defence. Pure: what it draws comes from the generators, and nothing is kept."""

    def __call__(self, rows: Tensor, draws: Draws) -> tuple[Tensor, Pull]:
        """What is made of ``rows [lanes, n, numbers]``, a batch a lane and a sample a row, and the way back."""

    def flops(self, numbers: int) -> tuple[int, int]:
        """FLOPs of a sample of ``numbers``, there and back. Comparisons, sorting and random draws count nothing."""

    def kept(self, numbers: int, itemsize: int) -> int:
        """Bytes of a sample that a client keeps for the way back."""

    @property
    def workspace(self) -> int:
        """Bytes for each number of a block while ranks compute it, beside the number before and after."""


@dataclass(frozen=True)
class Clipped:
    """Each sample's L2 norm to at most ``limit``: z · min(1, limit / |z|)."""

    limit: float
    workspace: ClassVar[int] = 12
    """Unit vectors, the squares of their lengths, the product."""

    def __call__(self, rows: Tensor, draws: Draws) -> tuple[Tensor, Pull]:  # noqa: ARG002
        """The way back is the Jacobian's: factor · (g - u (u·g)) with u = z / |z| where it was cut, else g."""
        norms = torch.linalg.vector_norm(rows, dim=_ROW, keepdim=True)
        cut = norms > self.limit
        factors = torch.where(cut, self.limit / norms, 1.0)
        units = rows / norms.clamp_min(torch.finfo(rows.dtype).tiny)

        def pull(gradient: Tensor) -> Tensor:
            along = (units * gradient).sum(dim=_ROW, keepdim=True)
            return torch.where(cut, factors * (gradient - units * along), gradient)

        return torch.where(cut, rows * factors, rows), pull

    def flops(self, numbers: int) -> tuple[int, int]:
        """Norm 2, product 1; u 1, u·g 2, difference 2, product 1, for each number."""
        return 3 * numbers, 6 * numbers

    def kept(self, numbers: int, itemsize: int) -> int:
        """The sample itself, and its norm."""
        return (numbers + 1) * itemsize


@dataclass(frozen=True)
class Noisy:
    """Every number plus one of mean 0: `gaussian` with standard deviation ``scale``, `laplace` with density
    exp(-|x| / scale) / (2 scale).
    """

    kind: str
    scale: float
    workspace: ClassVar[int] = 24
    """Draws in float64, one by one and stacked, then in the type of the numbers, and scaled."""

    def __call__(self, rows: Tensor, draws: Draws) -> tuple[Tensor, Pull]:
        """The way back is the identity."""
        shape = rows.shape[1:]

        def draw(generator: np.random.Generator) -> npt.NDArray[np.float64]:
            return generator.standard_normal(shape) if self.kind == "gaussian" else generator.laplace(size=shape)

        return rows + self.scale * _drawn(draw, draws, rows), _as_it_is

    def flops(self, numbers: int) -> tuple[int, int]:
        """Product and sum, for each number."""
        return 2 * numbers, 0

    def kept(self, numbers: int, itemsize: int) -> int:  # noqa: ARG002
        """Nothing."""
        return 0


class _Masked:
    """What leaves some numbers as they are and makes the others zero."""

    def flops(self, numbers: int) -> tuple[int, int]:
        """A product for each number, there and back."""
        return numbers, numbers

    def kept(self, numbers: int, itemsize: int) -> int:  # noqa: ARG002
        """The mask, a byte a number."""
        return numbers

    def _behind(self, rows: Tensor, gone: Tensor) -> tuple[Tensor, Pull]:
        return rows.masked_fill(gone, 0.0), lambda gradient: gradient.masked_fill(gone, 0.0)


@dataclass(frozen=True)
class Dropped(_Masked):
    """Every number is zero with probability ``rate``; the others are not scaled up, as published."""

    rate: float
    workspace: ClassVar[int] = 2
    """Masks, one by one and stacked; draws are one batch's at a time."""

    def __call__(self, rows: Tensor, draws: Draws) -> tuple[Tensor, Pull]:
        """The way back is the mask."""
        shape = rows.shape[1:]
        gone = torch.stack([torch.from_numpy(generator.random(shape) < self.rate) for generator in draws])
        return self._behind(rows, gone.to(rows.device))


@dataclass(frozen=True)
class Largest(_Masked):
    """The ⌈share · numbers⌉ largest magnitudes of each sample, and zero for the rest; equal ones by position."""

    share: float
    workspace: ClassVar[int] = 25
    """Magnitudes, sorted ones, and positions as the sort has them and as it gives them; the mask."""

    def __call__(self, rows: Tensor, draws: Draws) -> tuple[Tensor, Pull]:  # noqa: ARG002
        """The way back is the mask."""
        chosen = TopK(self.share).places(rows.flatten(0, 1)).view(*rows.shape[:2], -1)
        gone = torch.ones_like(rows, dtype=torch.bool).scatter_(_ROW, chosen, False)
        return self._behind(rows, gone)


@dataclass(frozen=True)
class LargestPublished(_Masked):
    """All but the ⌊(1 - share) · numbers⌋ smallest *signed* numbers of the whole batch, as ResSFL's code prunes."""

    share: float
    workspace: ClassVar[int] = 21
    """As ``Largest``, without magnitudes."""

    def __call__(self, rows: Tensor, draws: Draws) -> tuple[Tensor, Pull]:  # noqa: ARG002
        """The way back is the mask."""
        batches = rows.flatten(1)
        count = int(round((1.0 - self.share) * batches.shape[1], 9))
        smallest = torch.argsort(batches, dim=1, stable=True)[:, :count]
        gone = torch.zeros_like(batches, dtype=torch.bool).scatter_(1, smallest, True)
        return self._behind(rows, gone.view(rows.shape))


@dataclass(frozen=True)
class Quantised:
    """Each sample to ``levels`` values, evenly spaced from its smallest to its largest number; halves to even.

    Zero stays zero: what was dropped or pruned must not come back as the nearest level.
    """

    levels: int
    workspace: ClassVar[int] = 13
    """Differences, steps, their sum with the smallest; what is zero."""

    def __call__(self, rows: Tensor, draws: Draws) -> tuple[Tensor, Pull]:  # noqa: ARG002
        """The way back is straight through: the derivative itself is zero nearly everywhere."""
        low, high = rows.amin(dim=_ROW, keepdim=True), rows.amax(dim=_ROW, keepdim=True)
        width = (high - low) / (self.levels - 1)
        steps = torch.round((rows - low) / width).nan_to_num(0.0)  # 0/0 where all numbers are equal
        return torch.where(rows == 0.0, rows, low + width * steps), _as_it_is

    def flops(self, numbers: int) -> tuple[int, int]:
        """Difference, quotient, product and sum, for each number."""
        return 4 * numbers, 0

    def kept(self, numbers: int, itemsize: int) -> int:  # noqa: ARG002
        """Nothing."""
        return 0


class Guard:
    """The defences of one configuration, in their order; without any, smashed data leave as they are."""

    def __init__(self, pieces: Sequence[Piece], adversarial: float = 0.0) -> None:
        self.pieces = tuple(pieces)
        self.adversarial = adversarial
        """By how much numbers are moved first, against the sign of a ``slope``."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.pieces) or self.adversarial > 0.0

    def apply(self, smashed: Tensor, generator: np.random.Generator, slope: Tensor | None = None) -> Tensor:
        """What is sent of a client's batch ``smashed [n, C, h, w]``, in its type; every call draws on.

        ``slope``: as for ``send``. Differentiable nowhere: an attacker's gradient goes through ``send``.
        """
        return self.send(smashed[None], [generator], None if slope is None else slope[None])[0][0]

    def send(self, smashed: Tensor, draws: Draws, slope: Tensor | None = None) -> tuple[Tensor, Pull]:
        """What is sent of the batches ``smashed [lanes, n, C, h, w]``, each with its own generator, and the way back.

        In the type of ``smashed``; between, in float32 at least. ``slope``, of its shape: the derivative of the
        similarity of images to what the client's own decoder draws.

        Raises
        ------
        ValueError
            No ``slope`` where data are to be moved against it: whoever asks must bring the victim's decoder.
        """
        if not self:
            return smashed, _as_it_is
        shape, dtype = smashed.shape, smashed.dtype
        wide = torch.promote_types(dtype, torch.float32)
        rows = smashed.detach().flatten(_ROW).to(wide)
        pulls = []
        if self.adversarial:
            if slope is None:
                raise ValueError("defence.adversarial needs the slope of the client's own decoder at its smashed data")
            rows = (
                rows - self.adversarial * slope.flatten(_ROW).sign()
            )  # the way back: signs are constant nearly always
        for piece in self.pieces:
            rows, pull = piece(rows, draws)
            pulls.append(pull)

        def back(gradient: Tensor) -> Tensor:
            found = gradient.flatten(_ROW).to(wide)
            for pull in reversed(pulls):
                found = pull(found)
            return found.view(shape).to(gradient.dtype)

        return rows.view(shape).to(dtype), back

    def flops(self, numbers: int) -> tuple[int, int]:
        """FLOPs of a sample of ``numbers``, there and back, without those of a slope."""
        moved = (2 * numbers * (self.adversarial > 0.0), 0)
        there, back = zip(moved, *(piece.flops(numbers) for piece in self.pieces), strict=True)
        return sum(there), sum(back)

    def kept(self, numbers: int, itemsize: int) -> int:
        """Bytes of a sample that a client keeps for the way back."""
        return sum(piece.kept(numbers, itemsize) for piece in self.pieces)

    def workspace(self, itemsize: int) -> int:
        """Bytes for each number in which ranks compute a block, with what comes in and is sent.

        Of all pieces together: what one has freed is seldom of the size that the next one asks for.
        """
        moved = 2 * itemsize * (self.adversarial > 0.0)
        return 2 * itemsize + moved + sum(piece.workspace for piece in self.pieces) if self else 0


def guard(config: Config) -> Guard:
    """The guard of an experiment: each piece that `[defence]` sets."""
    defence = config.defence
    pieces: list[Piece] = []
    if defence.clip is not None:
        pieces.append(Clipped(defence.clip))
    if defence.noise != "none":
        pieces.append(Noisy(defence.noise, defence.noise_scale))
    if defence.dropout:
        pieces.append(Dropped(defence.dropout))
    if defence.keep_share < 1.0:
        kind = Largest if defence.keep == "per_sample" else LargestPublished
        pieces.append(kind(defence.keep_share))
    if defence.levels is not None:
        pieces.append(Quantised(defence.levels))
    return Guard(pieces, defence.adversarial)
