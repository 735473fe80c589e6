"""A block of clients that are computed together: weights stacked, one lane per client."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.clients.terms import CutTerm
from mocosfl_mpi.config import Client
from mocosfl_mpi.split.stacked import Pullback, StackedModel


class Block:
    """States of a few clients: online and momentum bottoms and SGD velocities ``[lanes, P]``, and what else they keep.

    Without a momentum model ``momentum`` is the online model itself. Clients whose ``model`` is only the beginning of
    the deepest one compute with, and change, the first columns of their states.
    """

    def __init__(
        self,
        clients: npt.NDArray[np.int64],
        state: dict[str, Tensor],
        model: StackedModel,
        settings: Client,
        terms: Sequence[CutTerm] = (),
    ) -> None:
        self.clients = clients
        self.state = state
        self._model = model
        self._settings = settings
        self._pullback: Pullback | None = None
        self._terms = terms
        self._at_cut: tuple[Tensor, Tensor] | None = None
        """Query images and smashed data of this step, where a term wants them."""
        self.reached = torch.ones(len(clients), dtype=torch.bool)
        """Whom a synchronisation reaches ``[lanes]``."""
        self.apart: Tensor | None = None
        """Gradient ``[lanes, P]`` of this step that does not come through the cut: a classifier's on the client."""

    def update_momentum(self, momentum: float) -> None:
        """C' ← τ·C' + (1-τ)·C. Before the first gradient both are equal and this changes nothing."""
        if self.has_momentum:
            self.own("momentum").lerp_(self.own("online"), 1.0 - momentum)

    def move(self, device: torch.device) -> None:
        """Bring all states to ``device``; one that has two names keeps them."""
        moved = {id(state): state.to(device) for state in self.state.values()}
        self.state = {name: moved[id(state)] for name, state in self.state.items()}

    @property
    def width(self) -> int:
        """Parameters of the clients' network."""
        return self._model.parameters

    def own(self, name: str) -> Tensor:
        """The columns of a state that the clients' network has ``[lanes, width]``, in place."""
        return self.state[name][:, : self.width]

    @property
    def has_momentum(self) -> bool:
        """Whether there is a momentum model."""
        return self.state["momentum"] is not self.state["online"]

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor | None]:
        """Smashed data ``[lanes, rows, C, h, w]`` of query images (online) and key images (momentum), detached.

        No keys where there is no momentum model.
        """
        # Keys first: they need no graph beside them.
        sent_keys = self._model.forward(self.own("momentum").contiguous(), key) if self.has_momentum else None
        online = self.own("online").contiguous()
        if self._settings.frozen:
            return self._model.forward(online, query), sent_keys
        smashed, self._pullback = self._model.forward_with_pullback(online, query)
        if self._terms:
            self._at_cut = query, smashed
        return smashed, sent_keys

    @torch.no_grad()
    def backward(self, gradient: Tensor, rates: Tensor, answered: Tensor, share: float = 1.0) -> None:
        """One SGD step from the gradient at the cut ``[lanes, rows, C, h, w]`` of every lane that is ``answered``.

        ``rates [lanes]``, ``answered [lanes]`` (bool): the others stay as they are. ``share``: of what the gradient is
        the mean, a client's own part; terms at the cut, means over the client's own rows, are multiplied by it.
        """
        assert self._pullback is not None, "backward without forward"
        found = self._pullback(self._with_terms(gradient, ~answered, share))
        if self.apart is not None:
            found += self.apart
            self.apart = None
        self._model.sgd(
            self.own("online"),
            self.own("velocity"),
            found,
            rates,
            answered,
            momentum=self._settings.momentum,
            decay=self._settings.weight_decay,
        )
        self._pullback = None

    def _with_terms(self, gradient: Tensor, silent: Tensor, share: float) -> Tensor:
        """The gradient at the cut with what the client's own terms add; states of ``silent`` lanes stay as they are."""
        if not self._terms:
            return gradient
        assert self._at_cut is not None, "backward without forward"
        states = [self.state[name] for term in self._terms for name in term.initial]
        before = [state[silent] for state in states]
        for term in self._terms:
            gradient = gradient + (share * term.gradient(self, *self._at_cut)).to(gradient.dtype)
        for state, kept in zip(states, before, strict=True):
            state[silent] = kept
        self._at_cut = None
        return gradient
