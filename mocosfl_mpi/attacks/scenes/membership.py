"""Was this image trained on? Members and others, and an adversary that holds the encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from mocosfl_mpi.attacks.attack import Guess, NotApplicable
from mocosfl_mpi.attacks.ranking import chance, separation
from mocosfl_mpi.attacks.scenes.draws import public, raw, some
from mocosfl_mpi.attacks.scenes.reconstruction import look
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import Role
from mocosfl_mpi.data.images import Dataset, Images


@dataclass(eq=False)
class Membership:
    """The encoder is out; which of these images has it seen?

    ``members``: images that are asked about as being in, all training images that were ever drawn if None; for a subset
    of the training data its images. ``others``: those that are not, of the test split if None, and then disjoint from
    the adversary's ``own``. Equally many of each are asked about, at most ``count``.

    ``data``: the data set of ``members``, if it is not that of the run: its test split is then the adversary's.

    Where every client trains alone, whoever has an encoder has that of ``client``, and its members are the images that
    this client has drawn.
    """

    victim: Victim
    role: Role = "encoder_holder"
    members: Images | None = None
    others: Images | None = None
    data: Dataset | None = None
    count: int = 500
    own: int = 500
    client: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        victim, train = self.victim, self.victim.source.train
        hand = public(victim, self.seed, self.own, self.data)
        members = self.members
        if members is None:
            within = np.arange(len(train)) if not victim.alone else victim.source.parts[self.client]
            members = train.take(within[victim.exposures[within] > 0] if victim.trained else within)
        others = self.others or hand.rest
        number = min(self.count, len(members), len(others))
        if not number:
            raise NotApplicable("there is no image that was learnt from, or none that was not: nothing to tell apart")
        asked = [some(victim, images, number, "asked", self.seed) for images in (members, others)]
        order = torch.randperm(
            2 * number, generator=torch.Generator().manual_seed(victim.streams.torch_seed("attack: asked", self.seed))
        )
        self.truth = (torch.arange(2 * number) < number)[order]
        seen = look(victim, self.role, self.client, hand.pixels, None, data=self.data)
        self.view = replace(
            seen,
            network=None if victim.config.supervised else seen.network,
            candidates=torch.cat([raw(images) for images in asked])[order],
            augment=victim.augment,
            own_raw=raw(hand.own),
            own_labels=torch.from_numpy(hand.own.labels),
        )

    def score(self, guess: Guess) -> dict[str, float]:
        """Area under the ROC curve, true positives at 1 % and 0.1 % of false ones (`ranking.separation`)."""
        return separation(guess.values, self.truth)

    def floors(self) -> dict[str, dict[str, float]]:
        """Chance."""
        return {"chance": chance()}
