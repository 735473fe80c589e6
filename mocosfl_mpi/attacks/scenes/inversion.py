"""What did this update come from? A client does one step from the checkpoint, and its new weights are seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Guess, NotApplicable
from mocosfl_mpi.attacks.scenes.draws import public, raw, some
from mocosfl_mpi.attacks.scenes.reconstruction import look
from mocosfl_mpi.attacks.steps import gradients_at_cut, local_gradient, sgd
from mocosfl_mpi.attacks.victim import Client, Victim
from mocosfl_mpi.attacks.view import SEES, TITLES, Gradients, Guard, Role, unguarded


@dataclass(eq=False)
class Inversion:
    """Client ``client`` does one SGD step on ``images`` of its images; the views it was on are to be rebuilt.

    The best case for an attacker: one step, of a known rate and weight decay, from weights that it knows, without
    velocity. It knows the loss and, in supervised methods, the labels, which the update of a classifier gives away
    anyway (Zhao, Mopuri, Bilen: iDLG. arXiv 2001.02610). Where the loss is the client's own, its momentum model and
    its past keys are a part of it and never leave the client: the adversary takes the online model for the one, and
    random keys for the others. ``informed`` is a stronger adversary than there is, who has both. Where the loss is the
    main server's, the gradient that it sent down is known: whoever sees both that and the clients' weights sees the
    smashed data too, and the question is what the weights add. What defences make of that gradient, and what terms at
    the cut add to it, stays with the client, and the adversary does without.
    """

    victim: Victim
    role: Role
    client: int = 0
    images: int = 1
    own: int = 1000
    informed: bool = False
    seed: int = 0
    guard: Guard = unguarded

    def __post_init__(self) -> None:
        victim, config = self.victim, self.victim.config
        self._require()
        streams = victim.streams
        mine = victim.source.train.take(victim.source.parts[self.client])
        images = some(victim, mine, self.images, "inverted", self.seed)
        count = 1 if config.supervised else 2
        views = victim.augment(raw(images), count, streams.torch_seed("attack: inverted views", self.seed))
        batch = views.transpose(0, 1).flatten(0, 1)
        labels = torch.from_numpy(images.labels) if config.supervised else None
        one_sided = not (config.whole_network or config.both_roles or config.supervised)
        self.truth = batch[: len(batch) // 2] if one_sided else batch
        hand, victim_client = public(victim, self.seed, self.own), victim.client(self.client)
        seen = look(victim, self.role, self.client, hand.pixels, self.truth, self.guard)
        above = known = None
        if not config.whole_network:
            draws = streams.torch_seed("attack: defended step", self.seed)
            known, above = gradients_at_cut(victim, victim_client, seen.normalise(batch), labels, draws)
        gradient = local_gradient(victim, victim_client, labels, above)
        taken_for = victim_client if self.informed else self._guessed(victim_client)
        believed = local_gradient(victim, taken_for, labels, known)

        def simulate(pixels: Tensor) -> Gradients:
            # Where second views have no gradient at the weights, anything may stand in for them.
            return believed(seen.normalise(torch.cat([pixels, pixels]) if one_sided else pixels))

        update = sgd(victim, victim_client.online, gradient(seen.normalise(batch)))
        self.view = replace(seen, update=update, simulate=simulate, unknowns=len(self.truth))

    def score(self, guess: Guess) -> dict[str, float]:
        """MSE, PSNR and SSIM, means over views; which of them is which does not matter."""
        return metrics.score(self._matched(guess.values), self.truth)

    def floors(self) -> dict[str, dict[str, float]]:
        """Constant mean colour (sees nothing), and each view's own mean colour (an oracle without structure)."""
        return {
            "constant_mean": metrics.score(metrics.constant_mean(self.view.own, len(self.truth)), self.truth),
            "own_mean": metrics.score(metrics.own_mean(self.truth), self.truth),
        }

    def _matched(self, values: Tensor) -> Tensor:
        from scipy.optimize import linear_sum_assignment

        costs = (values[None].clamp(0.0, 1.0) - self.truth[:, None]).square().flatten(2).mean(dim=2)
        return values[torch.from_numpy(linear_sum_assignment(costs.numpy())[1])]

    def _guessed(self, client: Client) -> Client:
        """The client as somebody takes it to be who has its online model alone."""
        momentum = None if client.momentum is None else client.online
        memory = client.memory
        if memory is not None:
            generator = torch.Generator().manual_seed(self.victim.streams.torch_seed("attack: guessed keys"))
            memory = F.normalize(torch.randn(memory.shape, generator=generator), dim=1)
        return Client(client.number, client.online, momentum, memory)

    def _require(self) -> None:
        config, name = self.victim.config, self.victim.config.method
        if "update" not in SEES[self.role]:
            raise NotApplicable(f"{TITLES[self.role]} does not see what a client's weights become")
        if config.vertical:
            raise NotApplicable("clients have pieces of images, and their weights stay with them")
        if self.victim.alone:
            raise NotApplicable(f"nobody but the client itself ever sees its model in {name}: nothing is shared")
        if config.client.frozen or config.client.lr == 0.0:
            raise NotApplicable("clients' weights never change: there is no update")
        if not config.whole_network and "answers" not in SEES[self.role]:
            raise NotApplicable(
                f"{TITLES[self.role]} cannot compute the update that images would give: in {name} that takes the "
                f"gradient at the cut, which the main server alone sends"
            )
