"""What clients do to smashed data, slow and obvious: sample by sample, autograd for the way back.

Written from the papers' formulae (docs/defences.md), not from the package; from it come only the random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mocosfl_mpi.config import Config
from mocosfl_mpi.streams import Streams

Defend = Callable[[int, int, int, str, Tensor], Tensor]
"""(epoch, step, client, query or key, its batch) to what is sent."""


def clipped(sample: Tensor, limit: float) -> Tensor:
    length = torch.sqrt((sample * sample).sum())
    return sample * limit / length if length.item() > limit else sample


def masked(sample: Tensor, keep: list[bool]) -> Tensor:
    return sample * torch.tensor(keep, dtype=sample.dtype)


def largest(sample: Tensor, share: float) -> list[bool]:
    numbers = sample.tolist()
    order = sorted(range(len(numbers)), key=lambda place: (-abs(numbers[place]), place))
    kept = set(order[: math.ceil(round(share * len(numbers), 9))])
    return [place in kept for place in range(len(numbers))]


def not_smallest(batch: Tensor, share: float) -> list[list[bool]]:
    """All but the smallest signed numbers of a whole batch, the earlier of equal ones first."""
    numbers = batch.flatten().tolist()
    order = sorted(range(len(numbers)), key=lambda place: (numbers[place], place))
    gone = set(order[: int(round((1.0 - share) * len(numbers), 9))])
    keep = [place not in gone for place in range(len(numbers))]
    width = batch.shape[1]
    return [keep[start : start + width] for start in range(0, len(keep), width)]


def quantised(sample: Tensor, levels: int) -> Tensor:
    """The nearest of evenly spaced values, of two as near the even one; gradients pass as if it had not happened."""
    numbers = sample.tolist()
    low, width = min(numbers), (max(numbers) - min(numbers)) / (levels - 1)
    found = [low + round((x - low) / width) * width if width and x else x for x in numbers]
    return sample + (torch.tensor(found, dtype=sample.dtype) - sample.detach())


def defended(config: Config) -> Defend:
    """The defences of ``config``, in their order."""
    defence, streams = config.defence, Streams(config.seed)

    def defend(epoch: int, step: int, client: int, branch: str, batch: Tensor) -> Tensor:
        generator = streams.generator(f"defence {branch}", epoch, step, client)
        rows = list(batch.flatten(1))
        shape = (len(rows), len(rows[0]))
        if defence.clip is not None:
            rows = [clipped(row, defence.clip) for row in rows]
        if defence.noise != "none":
            draw = (
                generator.standard_normal if defence.noise == "gaussian" else lambda size: generator.laplace(0, 1, size)
            )
            rows = [row + defence.noise_scale * torch.tensor(x) for row, x in zip(rows, draw(shape), strict=True)]
        if defence.dropout:
            stays = (generator.random(shape) >= defence.dropout).tolist()
            rows = [masked(row, keep) for row, keep in zip(rows, stays, strict=True)]
        if defence.keep_share < 1.0:
            keeps = [largest(row, defence.keep_share) for row in rows]
            if defence.keep == "published":
                keeps = not_smallest(torch.stack(rows), defence.keep_share)
            rows = [masked(row, keep) for row, keep in zip(rows, keeps, strict=True)]
        if defence.levels is not None:
            rows = [quantised(row, defence.levels) for row in rows]
        return torch.stack(rows).view(batch.shape)

    return defend


def distance_correlation(x: Tensor, z: Tensor) -> Tensor:
    """Székely, Rizzo, Bakirov 2007, definitions 4 and 5, for the rows of ``x`` and ``z``: entry by entry."""
    n = len(x)

    def centred(rows: Tensor) -> list[list[Tensor]]:
        flat = rows.flatten(1)
        zero = torch.zeros((), dtype=rows.dtype)
        d = [[torch.sqrt(((flat[k] - flat[m]) ** 2).sum()) if k != m else zero for m in range(n)] for k in range(n)]
        by_row = [sum(line) / n for line in d]
        whole = sum(by_row) / n
        return [[d[k][m] - by_row[k] - by_row[m] + whole for m in range(n)] for k in range(n)]

    a, b = centred(x), centred(z)

    def product(u: list[list[Tensor]], v: list[list[Tensor]]) -> Tensor:
        return sum(u[k][m] * v[k][m] for k in range(n) for m in range(n)) / n**2

    covariance = torch.sqrt(product(a, b))
    variances = torch.sqrt(product(a, a)), torch.sqrt(product(b, b))
    return covariance / torch.sqrt(variances[0] * variances[1])
