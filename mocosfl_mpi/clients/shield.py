"""What stands between a client's smashed data and the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from mocosfl_mpi.clients.block import Block

Pull = Callable[[Tensor], Tensor]
"""From the gradient at what was sent to that at what it was made of, in the same shape."""


class Shield(Protocol):
    """What clients make of their smashed data before they send them."""

    def query(self, block: Block, images: Tensor, smashed: Tensor, epoch: int, step: int) -> tuple[Tensor, Pull]:
        """What a block sends of ``smashed [lanes, rows, C, h, w]``, and the way back for its gradient.

        ``images [lanes, rows, C, H, W]``: what they were made of.
        """

    def key(self, block: Block, images: Tensor, smashed: Tensor, epoch: int, step: int) -> Tensor:
        """The same of key data, to which no gradient comes back."""


class Unshielded:
    """Smashed data leave as they are."""

    def query(self, block: Block, images: Tensor, smashed: Tensor, epoch: int, step: int) -> tuple[Tensor, Pull]:  # noqa: ARG002
        """The same, and the gradient as it came."""
        return smashed, lambda gradient: gradient

    def key(self, block: Block, images: Tensor, smashed: Tensor, epoch: int, step: int) -> Tensor:  # noqa: ARG002
        """The same."""
        return smashed
