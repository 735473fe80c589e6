"""Who looks, and what each of them gets to see. Attacks consume nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from mocosfl_mpi.split.cut import SplitNetwork

Role = Literal["wire", "main_server", "server", "malicious_server", "fed_server", "client", "encoder_holder"]
Sight = Literal[
    "smashed", "keys", "architecture", "weights", "update", "trunk", "answers", "steering", "received", "encoder"
]
"""Kinds of things that can be seen.

smashed, keys : what a client sends of the online and of the momentum model
architecture  : the layers of the client's part, not their weights
weights       : the client's part itself, so that one can compute with it
update        : what a client's weights became after known steps
trunk         : the main server's layers
answers       : gradients of each row at the cut; in U-shaped learning those at the features, which clients send up
steering      : the choice of what comes down as a gradient
received      : the gradients that one's own rows came back with
encoder       : the whole network, released
"""

SEES: dict[Role, frozenset[Sight]] = {
    "wire": frozenset({"smashed", "keys", "answers"}),
    "main_server": frozenset({"smashed", "keys", "architecture", "trunk", "answers"}),
    "server": frozenset({"smashed", "keys", "architecture", "trunk", "answers", "weights", "update"}),
    "malicious_server": frozenset({"smashed", "keys", "architecture", "trunk", "answers", "weights", "steering"}),
    "fed_server": frozenset({"architecture", "weights", "update"}),
    "client": frozenset({"architecture", "weights", "received", "answers"}),
    "encoder_holder": frozenset({"architecture", "weights", "encoder"}),
}
"""``server``: main server and fed server in one, as rank 0 is here and in the published code: more than either.

``client`` sees ``answers`` of other clients' images where they are its own too, in pieces (split_vertical).
"""

TITLES: dict[Role, str] = {
    "wire": "an eavesdropper on the wire",
    "main_server": "an honest but curious main server",
    "server": "main server and fed server in one",
    "malicious_server": "a main server that chooses its gradients",
    "fed_server": "an honest but curious fed server",
    "client": "another client",
    "encoder_holder": "whoever holds the released encoder",
}

Augment = Callable[[Tensor, int, int], Tensor]
"""Raw images uint8 ``[n, C, H, W]``, how many views of each, and a seed, to views in pixels ``[n, count, C, h, w]``."""

Gradients = tuple[Tensor, ...]
"""One tensor for each parameter tensor of a client."""

Guard = Callable[[Tensor, torch.Generator, Tensor], Tensor]
"""What a client does to smashed data ``[n, C, h, w]`` of normalised images ``[n, C, H, W]`` before they leave."""


def unguarded(smashed: Tensor, generator: torch.Generator, images: Tensor) -> Tensor:  # noqa: ARG001
    """No defence."""
    return smashed


class Steering(Protocol):
    """A client in training, as a main server has it in hand that chooses what comes down."""

    @property
    def pace(self) -> float:
        """The learning rate of the client's SGD over (1 - its momentum): how far a steady gradient leads in a step."""

    def send(self) -> Tensor:
        """The smashed data ``[b, c, h, w]`` of the client's next batch; which images they are stays with the client."""

    def answer(self, gradient: Tensor) -> None:
        """The client takes ``gradient [b, c, h, w]`` for the loss's, at what it has just sent, and makes its step."""

    def look(self) -> Tensor:
        """What the client sends at present of the images that are to be rebuilt ``[n, c, h, w]``; no step."""


@dataclass(frozen=True, eq=False)
class View:
    """What one adversary has in hand. None = it does not see that.

    Pixels are float32 in [0, 1], ``[n, C, H, W]``; smashed data float32 ``[n, c, h, w]``.
    """

    role: Role
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """The data set's normalisation, public."""
    image_shape: tuple[int, int, int]
    own: Tensor
    """Images of the adversary's own, of the same kind as the victims' and disjoint from them: pixels."""
    own_labels: Tensor | None = None
    """Their classes ``[n]``, where the scene gives them."""
    classes: int = 0
    """How many there are, where the scene gives labels: public."""
    smashed: Tensor | None = None
    keys: Tensor | None = None
    architecture: Callable[[int], nn.Module] | None = None
    """A client's part with fresh weights of a seed."""
    weights: nn.Module | None = None
    trunk: nn.Module | None = None
    encoder: Callable[[Tensor], Tensor] | None = None
    """Pixels to features ``[n, f]``; no graph."""
    network: Callable[[int], SplitNetwork] | None = None
    """With the encoder: the whole network with fresh weights of a seed, projector included."""
    augment: Augment | None = None
    """The run's augmentation, which is public; for scenes with raw images."""
    own_raw: Tensor | None = None
    """The adversary's own images before they are resized, in the order of ``own``: uint8 ``[n, C, H, W]``."""
    candidates: Tensor | None = None
    """Images among which the adversary looks for an answer, where the scene gives some: uint8 ``[m, C, H, W]``."""
    senders: Tensor | None = None
    """Which client sent each row of ``smashed`` ``[n]``, where several send: numbers from 0 on, without gaps."""
    answers: Tensor | None = None
    """Gradients ``[n, …]`` of each row that is asked about."""
    hints: Tensor | None = None
    """Rows ``[h]`` of ``answers`` of which the adversary knows that they are of the class in question."""
    received: Tensor | None = None
    """Gradients at the cut ``[m, k, c, h, w]`` of the ``k`` rows that an adversary planted for each candidate."""
    rehearsed: Tensor | None = None
    """The same ``[r, k, c, h, w]`` for images of the adversary's own."""
    rehearsal: Tensor | None = None
    """Which of those ``[r]`` are in the memory, bool."""
    update: Gradients | None = None
    """The gradient at a client's weights in one step, as the step has shown it."""
    simulate: Callable[[Tensor], Gradients] | None = None
    """The gradient that views in pixels ``[u, C, H, W]`` would have given; differentiable."""
    unknowns: int = 0
    """``u``: how many views an update is of."""
    steering: Steering | None = None
    guard: Guard = field(default=unguarded)
    """The defence as the adversary knows it: ``unguarded`` for one that does not know (naive)."""

    def normalise(self, pixels: Tensor) -> Tensor:
        """What the network sees of pixels."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (pixels - mean) / std

    def compute(self, pixels: Tensor) -> Tensor:
        """Smashed data of ``pixels``, undefended, differentiable; needs ``weights``."""
        assert self.weights is not None
        return self.weights(self.normalise(pixels))  # type: ignore[no-any-return]

    def sent(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """What the adversary believes a client would send of ``pixels``; no graph."""
        with torch.no_grad():
            return self.guard(self.compute(pixels), generator, self.normalise(pixels))
