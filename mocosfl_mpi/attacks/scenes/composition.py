"""Which classes does a client have? Several clients send a few batches of their images, as in training."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mocosfl_mpi.attacks.attack import Guess, NotApplicable
from mocosfl_mpi.attacks.scenes.draws import public, raw, some
from mocosfl_mpi.attacks.scenes.reconstruction import look
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import Guard, Role, unguarded

TOP = 2
"""So many of a client's most frequent classes are asked for."""


@dataclass(eq=False)
class Composition:
    """At most ``clients`` clients have sent ``images`` views each; which classes prevail with each of them?

    ``client`` is one of them; the others are drawn by ``seed``.
    """

    victim: Victim
    role: Role
    client: int = 0
    clients: int = 10
    images: int = 100
    own: int = 2000
    seed: int = 0
    guard: Guard = unguarded
    adaptive: bool = True

    def __post_init__(self) -> None:
        victim, source = self.victim, self.victim.source
        if victim.config.whole_network:
            raise NotApplicable(f"clients of {victim.config.method} send no smashed data that would tell their classes")
        draw = victim.streams.generator("attack: composition", self.seed)
        others = draw.permutation(len(source.parts))
        others = others[others != self.client][: self.clients - 1]
        chosen = np.sort(np.append(others, self.client))
        hand = public(victim, self.seed, self.own)
        smashed, senders, held = [], [], []
        for number, client in enumerate(chosen.tolist()):
            images = some(victim, source.train.take(source.parts[client]), self.images, f"sent by {client}", self.seed)
            views = victim.augment(raw(images), 1, victim.streams.torch_seed("attack: sent", client, self.seed))[:, 0]
            there = look(victim, self.role, client, hand.pixels, views, self.guard, adaptive=self.adaptive)
            if there.smashed is not None:
                smashed.append(there.smashed)
            if client == self.client:
                seen = there
            senders += [number] * len(images)
            labels = source.train.labels[source.parts[client]]
            held.append(np.bincount(labels, minlength=source.data.class_count) / len(labels))
        self.truth = torch.from_numpy(np.stack(held))
        self.view = replace(
            seen,
            smashed=torch.cat(smashed) if smashed else None,
            keys=None,
            senders=torch.tensor(senders),
            augment=victim.augment,
            own_raw=raw(hand.own),
            own_labels=torch.from_numpy(hand.own.labels),
            classes=source.data.class_count,
        )
        if len(np.unique(hand.own.labels)) < 2:
            raise NotApplicable("the adversary's own images are all of one class: it cannot learn to tell classes")

    def score(self, guess: Guess) -> dict[str, float]:
        """``top2``: share of each client's two most frequent classes that were named; distance of the mixtures.

        ``values``: shares of classes ``[clients, classes]``; ``distance``: total variation, 0 to 1.
        """
        return {"top2": self._named(guess.values), "distance": self._distance(guess.values)}

    def floors(self) -> dict[str, dict[str, float]]:
        """Chance; the classes' shares among the adversary's own images for every client, which takes no more than they;
        and the mixture of all these clients together for each of them.
        """
        classes = self.truth.shape[1]
        even = torch.full_like(self.truth, 1.0 / classes)
        assert self.view.own_labels is not None
        prior = torch.bincount(self.view.own_labels, minlength=classes).double()
        prior = (prior / prior.sum()).expand_as(self.truth)
        mean = self.truth.mean(dim=0, keepdim=True).expand_as(self.truth)
        return {
            "chance": {"top2": min(TOP, classes) / classes, "distance": self._distance(even)},
            "class_prior": {"top2": self._named(prior), "distance": self._distance(prior)},
            "mean_client": {"top2": self._named(mean), "distance": self._distance(mean)},
        }

    def _named(self, values: Tensor) -> float:
        count = min(TOP, self.truth.shape[1])
        said, true = (table.topk(count, dim=1).indices for table in (values, self.truth))
        return float((said[:, :, None] == true[:, None, :]).any(dim=2).double().mean())

    def _distance(self, values: Tensor) -> float:
        return float((values - self.truth).abs().sum(dim=1).mean() / 2.0)
