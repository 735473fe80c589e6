"""Which images are whose in a scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mocosfl_mpi.attacks.scenes.reconstruction import pixels_of
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.data.images import Dataset, Images


@dataclass(frozen=True, eq=False)
class Public:
    """An adversary's own images, of the test split, and those of it that are nobody's."""

    own: Images
    rest: Images
    pixels: Tensor
    """Of ``own``, resized."""


def public(victim: Victim, seed: int, count: int, data: Dataset | None = None) -> Public:
    """``count`` test images for the adversary, or half of them where there are fewer than twice as many.

    ``data``: of another data set than that of the run.
    """
    test = (data or victim.source.data).test
    order = victim.streams.generator("attack: own images", seed).permutation(len(test))
    count = min(count, len(test) // 2)
    own = test.take(np.sort(order[:count]))
    return Public(own, test.take(np.sort(order[count:])), pixels_of(own, victim.size))


def raw(images: Images) -> Tensor:
    """Pixels uint8 ``[n, C, H, W]``."""
    return torch.from_numpy(images.pixels)


def some(victim: Victim, images: Images, count: int, purpose: str, seed: int) -> Images:
    """``count`` of the images in random order, or all where there are fewer."""
    return images.take(victim.streams.generator(f"attack: {purpose}", seed).permutation(len(images))[:count])
