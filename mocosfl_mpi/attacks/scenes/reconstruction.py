"""Scenes: a victim does what it does in a run, an adversary looks on, and the truth is kept to score the guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Guess
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import SEES, Guard, Role, View, unguarded
from mocosfl_mpi.data.images import Dataset, Images
from mocosfl_mpi.split.cut import SplitNetwork


class Scene(Protocol):
    """One thing that can be learnt, and what a guess is worth."""

    view: View

    def score(self, guess: Guess) -> dict[str, float]:
        """How good a guess is."""

    def floors(self) -> dict[str, dict[str, float]]:
        """The scores of guessers who see nothing, by name."""


def pixels_of(images: Images, size: int) -> Tensor:
    """Pixels float32 in [0, 1] ``[n, C, size, size]``, resized as evaluations do."""
    from mocosfl_mpi.data.normalise import evaluation_images

    raw = torch.from_numpy(images.pixels)
    plain = (0.0,) * raw.shape[1], (1.0,) * raw.shape[1]
    return evaluation_images(raw, size, *plain, torch.float32)


def drawn(victim: Victim, client: int, own: int, seed: int) -> tuple[npt.NDArray[np.int64], Tensor]:
    """A client's training images in a random order, and pixels of ``own`` test images for the adversary."""
    draw = victim.streams.generator("attack", seed)
    chosen = draw.permutation(victim.source.parts[client])
    test = victim.source.data.test
    others = np.sort(draw.permutation(len(test))[:own])
    return chosen, pixels_of(test.take(others), victim.size)


def look(
    victim: Victim,
    role: Role,
    client: int,
    own: Tensor,
    sent: Tensor | None,
    guard: Guard = unguarded,
    *,
    adaptive: bool = True,
    data: Dataset | None = None,
) -> View:
    """What ``role`` sees while ``client`` sends the pixels ``sent`` once; ``own`` are the adversary's images.

    ``data``: the data set of these, where it is not that of the run.
    """
    sees = SEES[role]
    models = victim.client(client)
    generator = torch.Generator().manual_seed(victim.streams.torch_seed("attacked", client))
    data = data or victim.source.data
    bare = View(role, data.mean, data.std, (data.channels, victim.size, victim.size), own)

    def smashed(module: torch.nn.Module | None) -> Tensor | None:
        if sent is None or module is None or victim.config.whole_network:
            return None  # whole networks send nothing at a cut
        with torch.no_grad():
            images = bare.normalise(sent)
            return guard(module(images), generator, images)

    def stranger(seed: int) -> SplitNetwork:
        # Never the weights that a run of the same seed began with.
        return victim.fresh(victim.streams.torch_seed("stranger", seed))

    def encode(pixels: Tensor) -> Tensor:
        encoder = victim.encoder(client)
        with torch.no_grad():
            return torch.cat([encoder(bare.normalise(part)) for part in pixels.split(250)])

    return View(
        role, data.mean, data.std, bare.image_shape, own,
        smashed=smashed(models.online) if "smashed" in sees else None,
        keys=smashed(models.momentum) if "keys" in sees else None,
        architecture=victim.architecture if "architecture" in sees else None,
        weights=models.online if "weights" in sees else None,
        trunk=victim.trunk if "trunk" in sees else None,
        encoder=encode if "encoder" in sees else None,
        network=stranger if "encoder" in sees else None,
        guard=guard if adaptive else unguarded,
    )  # fmt: skip


@dataclass(eq=False)
class Reconstruction:
    """A client has sent some of its images; what did they look like?

    ``count`` of the client's own training images are sent; the adversary's ``own`` come from the test split.
    """

    victim: Victim
    role: Role
    client: int = 0
    count: int = 128
    own: int = 1000
    seed: int = 0
    guard: Guard = unguarded
    adaptive: bool = True

    def __post_init__(self) -> None:
        chosen, public = drawn(self.victim, self.client, self.own, self.seed)
        self.truth = pixels_of(self.victim.source.train.take(chosen[: self.count]), self.victim.size)
        self.view = look(self.victim, self.role, self.client, public, self.truth, self.guard, adaptive=self.adaptive)

    def score(self, guess: Guess) -> dict[str, float]:
        """MSE, PSNR and SSIM, means over images."""
        return metrics.score(guess.values, self.truth)

    def floors(self) -> dict[str, dict[str, float]]:
        """Constant mean colour (sees nothing), and each image's own mean colour (an oracle without structure)."""
        return metrics.floors(self.view.own, self.truth)
