"""Which rows are of this class? An adversary sees the gradient of each row, and no label."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mocosfl_mpi.attacks.attack import Guess, NotApplicable
from mocosfl_mpi.attacks.guards import answered, sending
from mocosfl_mpi.attacks.ranking import chance, separation
from mocosfl_mpi.attacks.scenes.draws import public, raw
from mocosfl_mpi.attacks.steps import at_cut, at_features
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import SEES, TITLES, Role, View
from mocosfl_mpi.split.pieces import apart, together


@dataclass(eq=False)
class Labels:
    """``count`` training images have been learnt from; which are of class ``positive``?

    They are those of ``client``, through its first layers, and where it has fewer, others' as though they were its own.
    In vertical learning, where every client has a piece of all images, ``client`` is who looks, if a client does. What
    clients send is defended as in training; these attacks have no use for knowing how.

    ``positive``: the rarest class of the training images if None. The adversary knows of ``hints`` rows that they are
    of it, and these are not asked about. Who sees gradients of rows and no label:

    - in U-shaped learning the main server, at the features, which is what the method was made against;
    - in vertical learning a client that does not hold the labels, at its own cut;
    - on the wire everybody, where the labels beside them are protected and the gradients are not.
    """

    victim: Victim
    role: Role
    client: int = 0
    positive: int | None = None
    count: int = 500
    hints: int = 4
    own: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        victim, source = self.victim, self.victim.source
        self._require()
        every = np.bincount(source.train.labels, minlength=source.data.class_count)
        positive = int(every.argmin()) if self.positive is None else self.positive
        draw = victim.streams.generator("attack: labels", self.seed)
        order = draw.permutation(len(source.train))
        if not victim.config.vertical:
            order = order[np.argsort(~np.isin(order, source.parts[self.client]), kind="stable")]
        images = source.train.take(order[: self.count])
        labels = torch.from_numpy(images.labels)
        views = victim.augment(raw(images), 1, victim.streams.torch_seed("attack: learnt from", self.seed))[:, 0]
        inside = labels == positive
        known = inside.nonzero()[:, 0][: min(self.hints, max(int(inside.sum()) - 1, 0))]
        self._asked = torch.ones(len(labels), dtype=torch.bool)
        self._asked[known] = False
        self.truth = inside[self._asked]
        if not self.truth.any() or self.truth.all():
            raise NotApplicable(
                f"class {positive} has {int(inside.sum())} of the {len(labels)} images that are asked about; there is "
                f"nothing to tell apart"
            )
        data = source.data
        hand = public(victim, self.seed, self.own)
        bare = View(self.role, data.mean, data.std, (data.channels, victim.size, victim.size), hand.pixels)
        self.view = replace(bare, answers=self._answers(bare.normalise(views), labels), hints=known)

    def score(self, guess: Guess) -> dict[str, float]:
        """How well ``values`` ``[n]`` tell rows of the class from others (`ranking.separation`)."""
        return separation(guess.values[self._asked], self.truth)

    def floors(self) -> dict[str, dict[str, float]]:
        """Chance."""
        return {"chance": chance()}

    def _answers(self, images: Tensor, labels: Tensor) -> Tensor:
        victim, config = self.victim, self.victim.config
        generator = torch.Generator().manual_seed(victim.streams.torch_seed("attack: defended rows", self.seed))

        def sent(number: int, seen: Tensor) -> Tensor:
            send = sending(victim, number)
            with torch.no_grad():
                smashed: Tensor = victim.client(number).online(seen)
            return smashed if send is None else send(smashed, generator, seen)[0]

        if config.vertical:
            pieces = apart(images, config.client.count)
            smashed = together([sent(number, piece.contiguous()) for number, piece in enumerate(pieces)])
        else:
            smashed = sent(self.client, images)
        if config.keeps_labels:
            return at_features(victim, victim.client(self.client), smashed, labels)
        found = answered(victim, at_cut(victim, smashed, labels))
        return apart(found, config.client.count)[self.client].contiguous() if config.vertical else found

    def _require(self) -> None:
        """Whether there are labels, gradients of rows, and somebody who sees these and not those."""
        config, name = self.victim.config, self.victim.config.method
        if not config.supervised:
            raise NotApplicable(f"no labels: {name} learns without; what clients have can be asked by composition")
        if config.whole_network:
            raise NotApplicable(f"no gradient of a single row travels in {name}: clients send weights")
        if "answers" not in SEES[self.role]:
            raise NotApplicable(f"{TITLES[self.role]} sees no gradient of a single row")
        if self.role == "client":
            if not config.vertical:
                raise NotApplicable(f"a client of {name} gets gradients of its own images alone, and has their labels")
            if config.client.holds_labels and self.client == 0:
                raise NotApplicable(
                    "the first client holds the labels (client.holds_labels = true); name who looks, --client 1"
                )
        elif self.role != "wire" and not config.keeps_labels:
            raise NotApplicable(f"{TITLES[self.role]} is given the labels in {name}: there is nothing left to infer")
