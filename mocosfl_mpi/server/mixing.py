"""Divergence-aware alignment: clients mix the common model with their own, of which they keep more if it is far away.

FedU: Zhuang, Gan, Wen, Zhang, Zhang, Yi: Collaborative unsupervised visual representation learning from decentralized
data, ICCV 2021. FedEMA: Zhuang, Wen, Zhang: Divergence-aware federated self-supervised learning, ICLR 2022.
docs/methods/fedu.md and fedema.md have equations, bytes, and where the authors' code differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from mocosfl_mpi.clients.keep import Keep
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.config import Federation
from mocosfl_mpi.cost.divergence import layer_distance
from mocosfl_mpi.server.alignments import KINDS, Means, Part, Scope, Traffic

States = Mapping[str, Tensor]


class Share(Protocol):
    """How much of its own model a client keeps."""

    @property
    def layer(self) -> str:
        """The only layer that is mixed, of the others nothing is kept; empty = all layers are."""

    def flops(self, numbers: int) -> int:
        """What a client computes to know its share and to mix ``numbers`` by it."""

    def __call__(self, divergence: Tensor, states: States) -> Tensor:
        """Shares μ in 0 … 1, from the divergences of a block's clients and their states: float64 ``[lanes]`` both."""


@dataclass(frozen=True)
class Scaled:
    """FedEMA: μ = min(λ·d, 1), where λ = ``target``/d at the first d > 0 that a client finds, its state ``scale``."""

    target: float
    layer: ClassVar[str] = ""

    def flops(self, numbers: int) -> int:
        """λ·d; then mean + μ·(C - mean) of every number. λ's one division in a whole run is left out."""
        return 1 + 3 * numbers

    def __call__(self, divergence: Tensor, states: States) -> Tensor:
        """See ``Share``; sets λ in place, once."""
        scale = states["scale"][:, 0]
        first = (scale == 0.0) & (divergence > 0.0)
        scale[first] = (self.target / divergence[first]).to(scale.dtype)
        return (scale.double() * divergence).clamp(max=1.0)


@dataclass(frozen=True)
class Near:
    """FedU: the common predictor where d < ``threshold``, its own elsewhere."""

    threshold: float
    layer: ClassVar[str] = "predictor"

    def flops(self, numbers: int) -> int:  # noqa: ARG002 - the protocol's
        """Nothing: it compares, and takes one or the other."""
        return 0

    def __call__(self, divergence: Tensor, states: States) -> Tensor:  # noqa: ARG002 - the protocol's
        """See ``Share``."""
        return (divergence >= self.threshold).double()


@dataclass(frozen=True)
class Mixed:
    """C_i ← μ_i·C_i + (1-μ_i)·mean C, up and down in full.

    d_i: mean over the filters of the encoder's convolutions of ‖C_i - mean C‖₂, before. A client that was away when the
    mean moved takes it whole.
    """

    share: Share
    state: ClassVar[str] = "online"
    every: ClassVar[int] = 1
    own: ClassVar[tuple[str, ...]] = ()

    def _columns(self, scope: Scope) -> tuple[tuple[int, int], ...]:
        layer = self.share.layer
        return Scope(scope.of(layer), scope.parameters).columns if layer else scope.columns

    def keeps(self, scope: Scope) -> tuple[Keep, ...]:
        """What is mixed, for as long as the mean has not moved without the client."""
        return (Keep(self.state, self._columns(scope), lapses=True),)

    def synchronise(self, clients: Population, means: Means, scope: Scope) -> list[Tensor]:
        """Mix in place; the shares that clients keep."""
        mean, shares = means.of(self.state), []
        clients.share(self.state, mean, scope.columns)
        for block in clients.blocks:
            model = block.state[self.state]
            kept = self.share(layer_distance(model, mean, scope.filters).mean(dim=1), block.state)
            weights, mixed = kept[:, None].to(model.dtype), mean.expand_as(model).clone()
            for start, stop in self._columns(scope):
                part = slice(start, stop)
                mixed[:, part] = torch.lerp(mixed[:, part], model[:, part], weights)  # exact at 0 and 1
            for start, stop in scope.columns:
                model[:, start:stop] = mixed[:, start:stop]
            shares.append(kept)
        return shares

    def traffic(self, scope: Scope, itemsize: int) -> Traffic:
        """One copy each way; the client's work is d_i, and mixing.

        Of d_i: subtraction, square and sum of every number, a root and a term of the mean of every filter, a division.
        """
        size, filters = scope.numbers * itemsize, [stop - start for start, stop in scope.filters]
        mixed = sum(stop - start for start, stop in self._columns(scope))
        flops = 3 * sum(filters) + 2 * len(filters) + 1 + self.share.flops(mixed)
        return Traffic(KINDS[self.state], size, size, self.every, flops=flops)


@dataclass(frozen=True)
class Inherited:
    """C'_i stays with its client; one without begins with the mean of ``source``, which it receives anyway."""

    state: str
    source: str
    lapses: bool
    """Whether that is done also by a client that was away when the mean moved."""
    every: ClassVar[int] = 1
    own: ClassVar[tuple[str, ...]] = ()

    def keeps(self, scope: Scope) -> tuple[Keep, ...]:
        """All of it."""
        return (Keep(self.state, scope.columns, self.lapses),)

    def synchronise(self, clients: Population, means: Means, scope: Scope) -> None:
        """Put the mean of the source where clients without an own one find it."""
        clients.share(self.state, means.of(self.source), scope.columns)

    def traffic(self, scope: Scope, itemsize: int) -> None:
        """Nothing."""


TARGET = Mixed(Scaled(0.7))
THRESHOLD = Mixed(Near(0.4))
MIXTURES: dict[str, tuple[Part, ...]] = {
    "mixed": (TARGET, Inherited("momentum", "online", lapses=True)),
    "predictor_mixed": (THRESHOLD, Inherited("momentum", "online", lapses=False)),
}
"""Alignments of methods that consist in them, with the published numbers."""

TUNED: dict[Part, Callable[[Federation], Part]] = {
    TARGET: lambda f: Mixed(Scaled(f.divergence_target)),
    THRESHOLD: lambda f: Mixed(Near(f.divergence_threshold)),
}
"""The same with an experiment's numbers."""
