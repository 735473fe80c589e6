"""Which of these images was it? A client sends a random view of an image that the adversary has among others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from mocosfl_mpi.attacks.attack import Effort, Guess, NotApplicable
from mocosfl_mpi.attacks.inference.linkage import Closest
from mocosfl_mpi.attacks.ranking import ranks
from mocosfl_mpi.attacks.scenes.draws import public, raw
from mocosfl_mpi.attacks.scenes.reconstruction import look
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import Guard, Role, unguarded


@dataclass(eq=False)
class Linkage:
    """A client has sent augmented views of some of its images, each of which is among the adversary's candidates.

    ``sent``: most images that it sends; candidates are these and other training images. ``augmented``: False sends the
    images themselves.
    """

    victim: Victim
    role: Role
    client: int = 0
    candidates: int = 128
    sent: int = 128
    own: int = 1000
    augmented: bool = True
    seed: int = 0
    guard: Guard = unguarded
    adaptive: bool = True

    def __post_init__(self) -> None:
        victim = self.victim
        if victim.config.whole_network:
            raise NotApplicable(f"clients of {victim.config.method} send no smashed data that could be linked")
        draw = victim.streams.generator("attack: linkage", self.seed)
        mine, everything = victim.source.parts[self.client], np.arange(len(victim.source.train))
        chosen = draw.permutation(mine)[: min(self.sent, self.candidates)]
        others = draw.permutation(np.setdiff1d(everything, chosen))[: self.candidates - len(chosen)]
        order = draw.permutation(len(chosen) + len(others))
        images = raw(victim.source.train.take(np.concatenate([chosen, others])[order]))
        self.truth = torch.from_numpy(np.argsort(order)[: len(chosen)])
        seed = victim.streams.torch_seed("attack: linked views", self.seed)
        linked = images[self.truth]
        views = victim.augment(linked, 1, seed)[:, 0] if self.augmented else _plain(victim, linked)
        self._pixels = views
        hand = public(victim, self.seed, self.own)
        seen = look(victim, self.role, self.client, hand.pixels, views, self.guard, adaptive=self.adaptive)
        self.view = replace(seen, candidates=images, augment=victim.augment)

    def score(self, guess: Guess) -> dict[str, float]:
        """Shares of rows whose candidate comes first, or among the first ten; mean reciprocal rank."""
        places = ranks(guess.values, self.truth)
        return {
            "top1": float((places <= 1.0).mean()),
            "top10": float((places <= 10.0).mean()),
            "mrr": float((1.0 / places).mean()),
        }

    def floors(self) -> dict[str, dict[str, float]]:
        """Chance; and what the same attack gets from the views' pixels, as if the cut were not there."""
        assert self.view.candidates is not None
        number = len(self.view.candidates)
        chance = {
            "top1": 1.0 / number,
            "top10": min(1.0, 10.0 / number),
            "mrr": float((1.0 / np.arange(1, number + 1)).mean()),
        }
        pixels = replace(self.view, smashed=self.view.normalise(self._pixels), weights=nn.Identity(), guard=unguarded)
        return {"chance": chance, "raw_pixels": self.score(Closest().run(pixels, self.seed, Effort()))}


def _plain(victim: Victim, images: torch.Tensor) -> torch.Tensor:
    from mocosfl_mpi.data.normalise import evaluation_images

    plain = (0.0,) * images.shape[1], (1.0,) * images.shape[1]
    return evaluation_images(images, victim.size, *plain, torch.float32)
