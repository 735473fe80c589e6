"""The scene of a malicious main server: a client goes on training, with whatever gradients it is given."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Guess, NotApplicable
from mocosfl_mpi.attacks.scenes import drawn, pixels_of
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import Guard, View, unguarded


class SteeredClient:
    """A client's part in training. It sends, and steps on what comes back, as in a run; a frozen one never steps.

    ``seen`` are its images ``[n, C, H, W]`` as its network sees them; each batch is drawn without replacement, from
    ``seed``. The first ``watched`` of them are those that are to be rebuilt.
    """

    def __init__(
        self,
        model: nn.Module,
        seen: Tensor,
        watched: int,
        *,
        batch: int,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        frozen: bool = False,
        guard: Guard = unguarded,
        seed: int = 0,
    ) -> None:
        self.frozen = frozen
        self.pace = lr / (1.0 - momentum)
        self.model = copy.deepcopy(model).requires_grad_(not frozen)
        self._seen = seen
        self._watched = watched
        self._batch = min(batch, len(seen))
        self._guard = guard
        self._generator = torch.Generator().manual_seed(seed)
        self._optimiser = torch.optim.SGD(self.model.parameters(), lr, momentum, weight_decay=weight_decay)
        self._smashed: Tensor | None = None

    def send(self) -> Tensor:
        """Smashed data ``[b, c, h, w]`` of the next batch, guarded."""
        chosen = torch.randperm(len(self._seen), generator=self._generator)[: self._batch]
        self._smashed = self.model(self._seen[chosen])
        return self._guard(self._smashed.detach(), self._generator, self._seen[chosen])

    def answer(self, gradient: Tensor) -> None:
        """One SGD step on ``gradient [b, c, h, w]``, taken for that at what was sent last."""
        if self.frozen:
            return
        assert self._smashed is not None, "nothing was sent"
        self._optimiser.zero_grad()
        self._smashed.backward(gradient)
        self._optimiser.step()

    def look(self) -> Tensor:
        """What is sent of the watched images ``[watched, c, h, w]``."""
        with torch.no_grad():
            watched = self._seen[: self._watched]
            return self._guard(self.model(watched), self._generator, watched)


@dataclass(eq=False)
class Steered:
    """A client trains with a malicious main server; what do its images look like?

    The client starts with the weights that it has in ``victim`` (those before the first step, for a victim that is not
    trained) and its own optimiser's settings, at the initial learning rate. It sends its images as they are: without
    augmentation, which makes the attacker's part easier. A frozen client ignores whatever comes down.
    """

    victim: Victim
    client: int = 0
    count: int = 128
    own: int = 1000
    seed: int = 0
    frozen: bool | None = None
    """Empty = as in the run."""
    batch: int = 64
    """Images in a batch, at most those that the client has; the published attack has 64."""
    guard: Guard = unguarded
    adaptive: bool = True

    def __post_init__(self) -> None:
        if self.victim.config.whole_network:
            raise NotApplicable(f"clients of {self.victim.config.method} get no gradient from a main server")
        chosen, public = drawn(self.victim, self.client, self.own, self.seed)
        images = pixels_of(self.victim.source.train.take(chosen), self.victim.size)
        self.truth = images[: self.count]
        data, settings = self.victim.source.data, self.victim.config.client
        bare = View(
            "malicious_server", data.mean, data.std, (data.channels, self.victim.size, self.victim.size), public,
            architecture=self.victim.architecture, guard=self.guard if self.adaptive else unguarded,
        )  # fmt: skip
        steered = SteeredClient(
            self.victim.client(self.client).online, bare.normalise(images), len(self.truth), batch=self.batch,
            lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay,
            frozen=settings.frozen if self.frozen is None else self.frozen, guard=self.guard,
            seed=self.victim.streams.torch_seed("steered", self.client, self.seed),
        )  # fmt: skip
        self.view = replace(bare, steering=steered)

    def score(self, guess: Guess) -> dict[str, float]:
        """MSE, PSNR and SSIM, means over images."""
        return metrics.score(guess.values, self.truth)

    def floors(self) -> dict[str, dict[str, float]]:
        """As of a reconstruction from what is merely seen."""
        return metrics.floors(self.view.own, self.truth)
